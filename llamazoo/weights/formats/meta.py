"""Meta's folders: params.json beside consolidated.NN.pth, one file for each process of the original model-parallel code.

Rotary pairs are stored interleaved. A process held a share of each tensor: rows of those that project out of the model
width, columns of those that project back into it.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llamazoo.contract.options import ComponentOptions
from llamazoo.decoder import Decoder
from llamazoo.errors import SpecError, WeightsError
from llamazoo.registry import Registry
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import parse_spec
from llamazoo.spec.differences import differences
from llamazoo.weights.checkpoint import Checkpoint, Format
from llamazoo.weights.files import plain_file, read_json
from llamazoo.weights.formats.meta_shards import ShardStore
from llamazoo.weights.rotary import Layout
from llamazoo.weights.rule import Drop, Rename, Rule
from llamazoo.weights.save import outgoing

__all__ = ["Meta", "hidden_width", "spec_of"]

CONTEXT = 2048  # params.json does not say it; this is Meta's own default. `build_model(spec, weights=folder)` takes any.


class Meta(Format):
    """params.json and consolidated.NN.pth."""

    name = "meta"
    looks_for = "a folder with params.json and consolidated.00.pth"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and (path / "params.json").exists() and any(path.glob("consolidated.*.pth"))

    @classmethod
    def read(cls, path: Path, registry: Registry) -> Checkpoint:
        where = plain_file(path, "params.json")
        params = read_json(where)
        store = ShardStore(path, params.get("dim"))
        try:
            spec = parse_spec(spec_of(params, store, str(where)), registry, source=str(where))
        except SpecError as error:
            raise WeightsError(f"{error} (from {where.name})") from error
        return Checkpoint(path, spec, store, cls)

    @classmethod
    def layout(cls, stored: ArchitectureSpec) -> Layout:
        return "interleaved"

    @classmethod
    def rules(cls, spec: ArchitectureSpec, stored: ArchitectureSpec) -> Sequence[Rule]:
        theirs, ours = "layers.*", "blocks.*"
        return [
            Rename("tok_embeddings.weight", "embedding.weight"),
            *(Rename(f"{theirs}.attention.w{n}.weight", f"{ours}.attention.{n}.weight") for n in "qkvo"),
            Rename(f"{theirs}.feed_forward.w1.weight", f"{ours}.feed_forward.gate.weight"),
            Rename(f"{theirs}.feed_forward.w3.weight", f"{ours}.feed_forward.up.weight"),
            Rename(f"{theirs}.feed_forward.w2.weight", f"{ours}.feed_forward.down.weight"),
            Rename(f"{theirs}.attention_norm.weight", f"{ours}.attention_norm.weight"),
            Rename(f"{theirs}.ffn_norm.weight", f"{ours}.feed_forward_norm.weight"),
            Rename("norm.weight", "final_norm.weight"),
            Rename("output.weight", "head.weight"),
            Drop("rope.freqs", "computed from rope_theta"),
        ]

    @classmethod
    def write(cls, model: Decoder, folder: Path, options: ComponentOptions) -> None:
        spec = model.spec
        params = params_of(spec)
        back = parse_spec(spec_of(params, None, "params.json"), spec._registry)
        lost = [d for d in differences(spec, back) if d.path not in ("max_seq_len", "bos_id", "eos_ids")]
        if lost:
            raise WeightsError("a Meta folder cannot express this architecture:\n" + "\n".join(f"  {line}" for line in lost))
        (folder / "params.json").write_text(json.dumps(params) + "\n")
        torch.save({out.name: out.make().contiguous() for out in outgoing(model, cls)}, folder / "consolidated.00.pth")


def hidden_width(dim: int, multiple_of: int, multiplier: float | None) -> int:
    """Meta's feed-forward width: two thirds of 4 dim, times the multiplier, rounded up. llama/model.py, FeedForward."""
    width = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    return multiple_of * math.ceil(width / multiple_of)


KNOWN = {
    "dim",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "multiple_of",
    "ffn_dim_multiplier",
    "norm_eps",
    "vocab_size",
    "rope_theta",
    "use_scaled_rope",
}


def spec_of(params: dict[str, Any], store: ShardStore | None, where: str) -> dict[str, Any]:
    """A spec's data for a params.json; a vocabulary of -1 is that of the output rows, joined."""
    unknown = sorted(set(params) - KNOWN)
    if unknown:
        raise WeightsError(f"{where}: {', '.join(map(ascii, unknown))}: not known, and so not safe to ignore")
    if params.get("use_scaled_rope", False) is not False:
        raise WeightsError(f"{where}: use_scaled_rope: is not supported")
    try:
        dim, n_heads, multiple_of = params["dim"], params["n_heads"], params["multiple_of"]
        numbers = {"dim": dim, "n_heads": n_heads, "multiple_of": multiple_of, "n_layers": params["n_layers"]}
        for name, value in numbers.items():
            if type(value) is not int or not 0 < value < 2**40:
                raise WeightsError(f"{where}: {name}: expected a positive integer, found {ascii(value)[:60]}")
        multiplier = params.get("ffn_dim_multiplier")
        if multiplier is not None and not (type(multiplier) in (int, float) and 0 < multiplier < 1000):
            raise WeightsError(f"{where}: ffn_dim_multiplier: expected a positive number, found {ascii(multiplier)[:60]}")
        vocab = params.get("vocab_size", -1)
        if vocab == -1:
            if store is None or "output.weight" not in store.names():
                raise WeightsError(f"{where}: vocab_size: is -1, and there is no output.weight to count")
            vocab = store.shape("output.weight")[0]
        data: dict[str, Any] = {
            "vocab_size": vocab,
            "dim": dim,
            "hidden_dim": hidden_width(dim, multiple_of, multiplier),
            "n_layers": params["n_layers"],
            "n_heads": n_heads,
            "n_kv_heads": n_heads if params.get("n_kv_heads") is None else params["n_kv_heads"],
            "max_seq_len": CONTEXT,
            "norm": {"type": "rmsnorm", "eps": params.get("norm_eps", 1e-5)},
            "position": {"type": "rope", "theta": params.get("rope_theta", 10000.0)},
            "attention": "multihead",
            "feed_forward": "swiglu",
        }
    except KeyError as error:
        raise WeightsError(f"{where}: {error.args[0]}: is required") from None
    if store is not None and "norm.weight" in store.names():
        name = str(store.dtype("norm.weight")).removeprefix("torch.")
        data["dtype"] = name if name in ("float32", "float16", "bfloat16", "float64") else None
    return data


def params_of(spec: ArchitectureSpec) -> dict[str, Any]:
    """The params.json nearest to a spec."""
    site = spec.site()
    width = getattr(spec.feed_forward.options, "hidden_dim", None) or spec.hidden_dim or 4 * spec.dim
    fitting = [n for n in (256, 1024, 4096, 1) if hidden_width(spec.dim, n, None) == width]
    # Where no usual multiple gives this width, a multiplier with a multiple of one gives any.
    shape = (
        {"multiple_of": fitting[0]} if fitting else {"multiple_of": 1, "ffn_dim_multiplier": (width + 0.5) / int(2 * (4 * spec.dim) / 3)}
    )
    return {
        "dim": spec.dim,
        "n_layers": spec.n_layers,
        "n_heads": spec.n_heads,
        "n_kv_heads": getattr(spec.attention.options, "n_kv_heads", None) or site.n_kv_heads,
        **shape,
        "norm_eps": getattr(spec.norm.options, "eps", 1e-5),
        "vocab_size": spec.vocab_size,
        "rope_theta": getattr(spec.places()[spec.layer(0).position].options, "theta", 10000.0),
    }
