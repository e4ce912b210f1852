"""The format `gguf`: llama models in one file, as llama.cpp writes them. Rotary pairs are stored interleaved."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from llamazoo import (
    ArchitectureSpec,
    Checkpoint,
    Drop,
    Format,
    PathEscapeError,
    Registry,
    Rename,
    Rule,
    SpecError,
    Tokenizer,
    WeightsError,
    hookimpl,
    load_spec,
    rotary_rule,
)
from llamazoo_gguf.fields import Fields
from llamazoo_gguf.reader import PLAIN, GgufFile
from llamazoo_gguf.tokenizer import tokenizer_of

__all__ = ["Gguf", "llamazoo_formats", "spec_of"]

OTHER_FORMATS = ("llamazoo.yaml", "config.json", "params.json")
FACTORS = "rope_freqs.weight"
ENDS = ("eos", "eot", "eom")  # of the text, of a turn, of a message: generation stops at each
# Who made the file, from what, and with which calibration data; nothing about what it computes.
ABOUT = ("general.", "imatrix.", "mradermacher.", "quantize.")
# What else a llama may say of itself, and the one value of it that is a plain llama.
PLAIN_LLAMA: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scale_linear": (1.0,),
    "rope.scaling.factor": (1.0,),
    "rope.scaling.type": ("none",),
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
}


class Gguf(Format):
    """A .gguf file with a llama in it."""

    name = "gguf"
    looks_for = "a .gguf file, or a folder with just one"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return _file(path) is not None

    @classmethod
    def read(cls, path: Path, registry: Registry) -> Checkpoint:
        file = cls._open(path)
        try:
            spec = load_spec(spec_of(file), registry=registry)
        except SpecError as error:
            raise WeightsError(f"{file.path}: {error}") from error
        return Checkpoint(file.path, spec, file, cls)

    @classmethod
    def rules(cls, spec: ArchitectureSpec, stored: ArchitectureSpec) -> Sequence[Rule]:
        leaves = ("weight", "bias")
        attention = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
        feed_forward = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
        return [
            Rename("token_embd.weight", "embedding.weight"),
            *(
                rotary_rule(spec, f"blk.*.{attention[n]}.{leaf}", f"blocks.*.attention.{n}.{leaf}", "interleaved")
                for n in "qk"
                for leaf in leaves
            ),
            *(Rename(f"blk.*.{attention[n]}.{leaf}", f"blocks.*.attention.{n}.{leaf}") for n in "vo" for leaf in leaves),
            *(
                Rename(f"blk.*.{theirs}.{leaf}", f"blocks.*.feed_forward.{n}.{leaf}")
                for n, theirs in feed_forward.items()
                for leaf in leaves
            ),
            Rename("blk.*.attn_norm.weight", "blocks.*.attention_norm.weight"),
            Rename("blk.*.ffn_norm.weight", "blocks.*.feed_forward_norm.weight"),
            Rename("output_norm.weight", "final_norm.weight"),
            Rename("output.weight", "head.weight"),
            Drop(FACTORS, "all ones; others are refused"),
        ]

    @classmethod
    def tokenizer(cls, path: Path) -> Tokenizer | None:
        return tokenizer_of(cls._open(path))

    @classmethod
    def _open(cls, path: Path) -> GgufFile:
        file = _file(path)
        if file is None:
            raise WeightsError(f"{path}: is not {cls.looks_for}")
        if file != path and not file.resolve().is_relative_to(path.resolve()):
            raise PathEscapeError(f"{path}: {ascii(file.name)[:80]} points outside this folder; name the file itself")
        return GgufFile(file)


@hookimpl
def llamazoo_formats() -> Iterable[type[Format]]:
    return [Gguf]


def spec_of(file: GgufFile) -> dict[str, Any]:
    """A spec's data for a file's metadata; what is unknown or unsupported is an error that names it."""
    general = Fields(file, "general.", WeightsError)
    architecture = general.take("architecture", str)
    if architecture != "llama":
        raise general.wrong("architecture", f"{ascii(architecture)[:60]} is not supported; supported: llama")
    general.only({"type": ("model",), "quantization_version": (2,)})
    Fields(file, "split.", WeightsError).only({"count": (0, 1)})
    strangers = sorted(key for key in file.metadata if not key.startswith((*ABOUT, "llama.", "split.", "tokenizer.")))
    if strangers:
        raise WeightsError(f"{file.path}: {', '.join(map(ascii, strangers))[:300]}: not known, and so not safe to ignore")
    fields = Fields(file, "llama.", WeightsError)
    names = set(file.names())
    if "token_embd.weight" not in names:
        raise WeightsError(f"{file.path}: has no tensor token_embd.weight")
    vocab_size, dim, n_heads = file.shape("token_embd.weight")[0], _size(fields, "embedding_length"), _size(fields, "attention.head_count")
    head_dim = _size(fields, "attention.key_length", dim // n_heads)
    rotated = _size(fields, "rope.dimension_count", head_dim)
    _refuse_factors(file, rotated // 2)
    n_layers = _size(fields, "block_count")
    if n_layers > len(names):
        raise fields.wrong("block_count", f"{n_layers} layers, in a file of {len(names)} tensors")
    data = {
        "vocab_size": vocab_size,
        "dim": dim,
        "hidden_dim": _size(fields, "feed_forward_length"),
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": _size(fields, "attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "max_seq_len": _size(fields, "context_length"),
        "dtype": _dtype(file),
        **_ends(file),
        "norm": {"type": "rmsnorm", "eps": fields.take("attention.layer_norm_rms_epsilon", float)},
        "position": {
            "type": "rope",
            "theta": fields.take("rope.freq_base", float, 10000.0),
            "fraction": rotated / head_dim,
        },
        "attention": {
            "type": "multihead",
            "qkv_bias": "blk.0.attn_q.bias" in names,
            "out_bias": "blk.0.attn_output.bias" in names,
        },
        "feed_forward": {"type": "gated", "activation": "silu", "bias": "blk.0.ffn_up.bias" in names},
        "head": {"type": "linear", "tied": "output.weight" not in names},
    }
    fields.only({"vocab_size": (vocab_size,), "attention.value_length": (head_dim,), **PLAIN_LLAMA})
    fields.finish()
    return data


def _file(path: Path) -> Path | None:
    """The one file that a path stands for, if it stands for one."""
    if path.is_dir():
        found = [] if any((path / name).exists() for name in OTHER_FORMATS) else list(path.glob("*.gguf"))
        return found[0] if len(found) == 1 and found[0].is_file() else None
    return path if path.suffix == ".gguf" and path.is_file() else None


def _size(fields: Fields, key: str, *default: int) -> int:
    value = fields.take(key, int, *default)
    if value < 1:
        raise fields.wrong(key, f"expected a positive number, found {value}")
    return value


def _dtype(file: GgufFile) -> str:
    """The dtype that loses nothing: that of all tensors if they agree and none is quantised, else float32."""
    kinds = {entry.kind for entry in file.entries.values()}
    found = PLAIN.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32
    return str(found).removeprefix("torch.")


def _ends(file: GgufFile) -> dict[str, Any]:
    """The ids at which a text begins and ends."""
    fields = Fields(file, "tokenizer.ggml.", WeightsError)
    ids = (fields.take(f"{name}_token_id", int, None) for name in ENDS)
    return {"bos_id": fields.take("bos_token_id", int, None), "eos_ids": list(dict.fromkeys(i for i in ids if i is not None))}


def _refuse_factors(file: GgufFile, count: int) -> None:
    """A file may divide each rotary frequency by a factor, as Llama 3.1 does; a plain llama has no factors, or ones."""
    if FACTORS in file.names() and (file.shape(FACTORS) != (count,) or not (file.read(FACTORS) == 1).all()):
        raise WeightsError(f"{file.path}: {FACTORS}: scales the rotary frequencies, which is not supported")
