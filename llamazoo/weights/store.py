"""Tensors in safetensors files: the header is checked in full before anything is read, and reading goes straight into the final tensor.

Nothing is mapped into memory: a file that is cut short while it is mapped kills the process, one that is read raises an error.
"""

import ctypes
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from llamazoo.errors import WeightsError
from llamazoo.weights.files import plain_file, read_json, strict_json

__all__ = ["Entry", "Outgoing", "SafetensorsStore", "Store", "write_safetensors", "write_sharded"]

MAX_HEADER = 8 << 20
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_BYTES = 5_000_000_000

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


class Store(Protocol):
    """Tensors by name, wherever they come from."""

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def read(self, name: str) -> Tensor:
        """The tensor, on the CPU, in memory of its own."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # in bytes, from the start of the file
    end: int


class SafetensorsStore:
    """The tensors of one or more safetensors files."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.entries: dict[str, Entry] = {}
        for path in paths:
            for name, entry in read_header(path).items():
                if name in self.entries:
                    raise WeightsError(f"{path}: the tensor {name!r} is in {self.entries[name].path.name} too")
                self.entries[name] = entry

    @classmethod
    def in_folder(cls, folder: Path) -> "SafetensorsStore":
        """The model.safetensors of a folder, or the shards that its index names; index and headers must agree."""
        single, index = (folder / SINGLE).exists(), (folder / INDEX).exists()
        if single and index:
            raise WeightsError(f"{folder}: has both {SINGLE} and {INDEX}; which of them is the model cannot be told")
        if single:
            return cls([plain_file(folder, SINGLE)])
        if not index:
            raise WeightsError(f"{folder}: has neither {SINGLE} nor {INDEX}")
        where = plain_file(folder, INDEX)
        weight_map = read_json(where).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise WeightsError(f"{where}: has no `weight_map` from tensors to files")
        files = {name: plain_file(folder, file) for name, file in weight_map.items()}
        store = cls(dict.fromkeys(files.values()))
        lost = [name for name, path in files.items() if name not in store.entries or store.entries[name].path != path]
        extra = [name for name in store.entries if name not in files]
        if lost or extra:
            told = _some(lost, "not where it says") + _some(extra, "in a file but not in the index")
            raise WeightsError(f"{where}: does not agree with its files: {told}")
        return store

    def names(self) -> list[str]:
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self.entries[name].dtype

    def read(self, name: str) -> Tensor:
        entry = self.entries[name]
        tensor = torch.empty(entry.shape, dtype=entry.dtype, device="cpu")
        buffer, done = _bytes_of(tensor), 0
        try:
            with open(entry.path, "rb", buffering=0) as file:
                file.seek(entry.begin)
                while done < len(buffer):
                    count = file.readinto(buffer[done:])
                    if not count:
                        raise WeightsError(f"{entry.path}: ends within the tensor {name!r}; the file was changed while it was read")
                    done += count
        except OSError as error:
            raise WeightsError(f"{entry.path}: {error.strerror}") from None
        return tensor


def read_header(path: Path) -> dict[str, Entry]:
    """All tensors of a safetensors file, by name; WeightsError unless the header describes the file without a gap."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise WeightsError(f"{path}: has {size} bytes, too few for a safetensors file")
        (length,) = struct.unpack("<Q", start)
        if MAX_HEADER < length <= size - 8:
            raise WeightsError(f"{path}: has a header of {length} bytes; at most {MAX_HEADER} are supported")
        if length > size - 8:
            kind = "a zip or pickle file" if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04") else "no safetensors file, or a truncated one"
            raise WeightsError(f"{path}: claims a header of {length} bytes in a file of {size}; it is {kind}")
        raw = file.read(length)
    if raw[:1] != b"{":
        raise WeightsError(f"{path}: its header does not begin with a brace")
    header = strict_json(raw, str(path))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise WeightsError(f"{path}: its metadata is not a map of strings")
    data = 8 + length
    entries = {name: _entry(path, name, fields, data) for name, fields in header.items()}
    end = data
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            raise WeightsError(f"{path}: the tensor {name!a} begins at byte {entry.begin}, where {end} was due: an overlap or a hole")
        end = entry.end
    if end != size:
        raise WeightsError(f"{path}: its tensors end at byte {end}, the file at {size}")
    return entries


def _entry(path: Path, name: str, fields: Any, data: int) -> Entry:
    where = f"{path}: the tensor {ascii(name)[:100]}"
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{where} is not described by dtype, shape and data_offsets")
    code, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise WeightsError(f"{where} has the dtype {ascii(code)[:40]}; supported: {', '.join(DTYPES)}")
    for label, numbers in (("shape", shape), ("data_offsets", offsets)):
        whole = isinstance(numbers, list) and len(numbers) <= 16 and all(type(n) is int and 0 <= n < 2**62 for n in numbers)
        if not whole:
            raise WeightsError(f"{where} has the {label} {ascii(numbers)[:80]}")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * DTYPES[code].itemsize:
        raise WeightsError(f"{where} has the shape {shape} in {code}, which does not take the bytes {offsets}")
    return Entry(path, DTYPES[code], tuple(shape), data + offsets[0], data + offsets[1])


def _some(names: list[str], what: str) -> str:
    return f"{what}: {', '.join(map(ascii, names[:20]))}{' ...' if len(names) > 20 else ''}. " if names else ""


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor; valid as long as the tensor lives."""
    assert tensor.is_contiguous()
    assert tensor.device.type == "cpu"
    if tensor.nbytes == 0:
        return memoryview(b"")
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


@dataclass(frozen=True)
class Outgoing:
    """A tensor to be written: described first, made when its turn comes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_sharded(folder: Path, tensors: Iterable[Outgoing], shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors into model.safetensors, or into shards with an index if they are more than one shard's worth."""
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        write_safetensors(folder / SINGLE, shards[0])
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / file, shard)
        weight_map.update({out.name: file for out in shard})
    total = sum(out.nbytes for shard in shards for out in shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1) + "\n")


def _shards(tensors: Iterable[Outgoing], shard_bytes: int) -> Iterator[list[Outgoing]]:
    shard: list[Outgoing] = []
    for out in tensors:
        if shard and sum(held.nbytes for held in shard) + out.nbytes > shard_bytes:
            yield shard
            shard = []
        shard.append(out)
    yield shard


def write_safetensors(path: Path, tensors: list[Outgoing]) -> None:
    """Write one file, header first, then one tensor at a time, so that no second copy of the model is needed."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for out in tensors:
        if out.dtype not in CODES:
            raise WeightsError(f"{out.name}: {out.dtype} has no name in safetensors files")
        header[out.name] = {"dtype": CODES[out.dtype], "shape": list(out.shape), "data_offsets": [offset, offset + out.nbytes]}
        offset += out.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for out in tensors:
            tensor = out.make().detach().to("cpu", out.dtype).contiguous()
            assert tuple(tensor.shape) == out.shape
            file.write(_bytes_of(tensor))
        file.flush()
        os.fsync(file.fileno())
