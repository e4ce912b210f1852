"""The format `gguf`: llama models in one file, as llama.cpp writes them. Rotary pairs are stored interleaved."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from gguf.constants import GGML_QUANT_SIZES, GGML_QUANT_VERSION, GGMLQuantizationType, LlamaFileType

from llamazoo import (
    ArchitectureSpec,
    Checkpoint,
    ComponentOptions,
    Decoder,
    Drop,
    Format,
    Outgoing,
    PathEscapeError,
    Registry,
    Rename,
    Rule,
    SpecError,
    Tokenizer,
    TokenizerError,
    WeightsError,
    differences,
    hookimpl,
    load_spec,
    outgoing,
)
from llamazoo_gguf.llama import FACTORS, dtype_of, likeness, metadata_of, refuse_factors, spec_of
from llamazoo_gguf.reader import PLAIN, QUANTISED, Contents, GgufFile
from llamazoo_gguf.tokenizer import tokenizer_of
from llamazoo_gguf.tokenizer_metadata import Saved, ends_of, refuse_change, tokenizer_metadata_of
from llamazoo_gguf.writer import Planned, header_of, write_file

__all__ = ["Gguf", "llamazoo_formats"]

OTHER_FORMATS = ("llamazoo.yaml", "config.json", "params.json")
FILE = "model.gguf"
Kind = GGMLQuantizationType
KINDS = {dtype: kind for kind, dtype in PLAIN.items()}
FILE_TYPES = {
    Kind.F32: LlamaFileType.ALL_F32,
    Kind.F16: LlamaFileType.MOSTLY_F16,
    Kind.BF16: LlamaFileType.MOSTLY_BF16,
    Kind.Q8_0: LlamaFileType.MOSTLY_Q8_0,
}


class Gguf(Format):
    """A .gguf file with a llama in it."""

    name = "gguf"
    looks_for = "a .gguf file, or a folder with just one"

    class Options(ComponentOptions):
        type: Literal["auto", "f32", "f16", "bf16", "q8_0"] = "auto"
        """The type of matrices in the file; `auto` is the one that they have."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return _file(path) is not None

    @classmethod
    def read(cls, path: Path, registry: Registry) -> Checkpoint:
        file = cls._open(path)
        data = spec_of(file)
        if data["n_layers"] > len(file.names()):
            raise WeightsError(f"{file.path}: llama.block_count: {data['n_layers']} layers, in a file of {len(file.names())} tensors")
        refuse_factors(file, round(data["head_dim"] * data["position"]["fraction"]) // 2)
        try:
            spec = load_spec({**data, "dtype": dtype_of(file)}, registry=registry)
        except SpecError as error:
            raise WeightsError(f"{file.path}: {error}") from error
        return Checkpoint(file.path, spec, file, cls)

    @classmethod
    def layout(cls, stored: ArchitectureSpec) -> str:
        return "interleaved"

    @classmethod
    def rules(cls, spec: ArchitectureSpec, stored: ArchitectureSpec) -> Sequence[Rule]:
        leaves = ("weight", "bias")
        attention = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
        feed_forward = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
        return [
            Rename("token_embd.weight", "embedding.weight"),
            *(Rename(f"blk.*.{attention[n]}.{leaf}", f"blocks.*.attention.{n}.{leaf}") for n in "qkvo" for leaf in leaves),
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
    def write(cls, model: Decoder, folder: Path, options: Any) -> None:
        cls._write(model, folder, options, None)

    @classmethod
    def write_with_tokenizer(cls, model: Decoder, folder: Path, options: Any, tokenizer: Tokenizer) -> None:
        cls._write(model, folder, options, tokenizer)

    @classmethod
    def _write(cls, model: Decoder, folder: Path, options: Any, tokenizer: Tokenizer | None) -> None:
        rows = model.spec.vocab_size
        if tokenizer is not None and tokenizer.vocab_size > rows:  # said before anything counts up to it
            raise TokenizerError(f"the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary only {rows}")
        spec, chosen = model.spec, None if options.type == "auto" else GGMLQuantizationType[options.type.upper()]
        metadata = metadata_of(spec)
        _refuse_loss(spec, metadata)
        tensors = [_planned(out, chosen) for out in outgoing(model, cls)]
        saved = None if tokenizer is None else Saved(tokenizer)
        described = {**metadata, **_types(tensors), **ends_of(spec, saved), **tokenizer_metadata_of(saved, rows)}
        header, size = header_of(described, tensors)
        contents = Contents(Path(FILE), header, size)  # what is written is what the reader of strangers' files takes
        again = tokenizer_of(contents)
        if saved is not None and again is not None:
            refuse_change(saved, Saved(again))
        write_file(folder / FILE, header, tensors)

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


def _file(path: Path) -> Path | None:
    """The one file that a path stands for, if it stands for one."""
    if path.is_dir():
        found = [] if any((path / name).exists() for name in OTHER_FORMATS) else list(path.glob("*.gguf"))
        return found[0] if len(found) == 1 and found[0].is_file() else None
    return path if path.suffix == ".gguf" and path.is_file() else None


def _refuse_loss(spec: ArchitectureSpec, metadata: Mapping[str, Any]) -> None:
    """WeightsError if a file with these metadata would be read as another architecture, with a line for each field."""
    tensors = [Planned(name, Kind.F32, shape, lambda: torch.empty(0)) for name, shape in likeness(spec).items()]
    try:
        back = load_spec(spec_of(Contents(Path(FILE), *header_of(metadata, tensors))), registry=spec.registry)
        lost = [d for d in differences(spec, back) if d.path not in ("bos_id", "eos_ids")]  # those are for `ends_of`
    except (SpecError, WeightsError) as error:
        lost = [str(error)]
    if lost:
        raise WeightsError("a llama GGUF file cannot express this architecture:\n" + "\n".join(f"  {line}" for line in lost))


def _planned(out: Outgoing, chosen: GGMLQuantizationType | None) -> Planned:
    """A tensor in its type: vectors in F32, as llama.cpp wants norms and biases, and rows that Q8_0 cannot divide in F16, as it does."""
    kind = KINDS.get(out.dtype) if chosen is None else chosen  # F32 is nought
    if kind is None:
        told = f"{out.name}: is {str(out.dtype).removeprefix('torch.')}, which GGUF files do not hold"
        raise WeightsError(f"{told}; choose a type (f32, f16, bf16 or q8_0), or convert the model to the dtype float32 first")
    if len(out.shape) < 2:
        kind = Kind.F32
    elif out.shape[-1] % GGML_QUANT_SIZES[kind][0]:  # of a plain type a block is one number
        kind = Kind.F16
    return Planned(out.name, kind, out.shape, out.make)


def _types(tensors: Sequence[Planned]) -> dict[str, Any]:
    """In which type most numbers are: that of the embedding or, where its rows do not divide into blocks, of whatever is quantised."""
    kinds = {tensor.kind for tensor in tensors}
    quantised = kinds & set(QUANTISED)
    kind = quantised.pop() if quantised else next(tensor.kind for tensor in tensors if tensor.name == "token_embd.weight")
    version = {"general.quantization_version": GGML_QUANT_VERSION} if kind in QUANTISED else {}
    return {"general.file_type": int(FILE_TYPES[kind]), **version}
