"""Meta's consolidated.NN.pth, one file for each process of the original code, joined as they were cut.

They are pickles in zip archives: read with `weights_only`, so no code of theirs runs, after the archive has been found to
hold what it says and no more.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llamazoo.errors import WeightsError
from llamazoo.weights.files import plain_file

__all__ = ["ShardStore"]

ROWS = re.compile(r"layers\.\d+\.(attention\.w[qkv]|feed_forward\.w[13])\.weight|output\.weight")
COLUMNS = re.compile(r"layers\.\d+\.(attention\.wo|feed_forward\.w2)\.weight")
MAX_PICKLE = 64 << 20  # bytes of the pickle that describes the tensors, whose values lie beside it
MAX_ENTRIES = 100_000


class ShardStore:
    """The tensors of all consolidated.NN.pth."""

    def __init__(self, folder: Path, dim: Any) -> None:
        names = sorted(path.name for path in folder.glob("consolidated.*.pth"))
        expected = [f"consolidated.{rank:02d}.pth" for rank in range(len(names))]
        if names != expected:
            raise WeightsError(f"{folder}: has {', '.join(names)}; expected {', '.join(expected)}")
        self.dim = dim
        self.paths = [plain_file(folder, name) for name in names]
        self.shards = [_unpickled(path) for path in self.paths]
        for path, shard in zip(self.paths, self.shards, strict=True):
            different = sorted(set(shard) ^ set(self.shards[0]))
            if different:
                raise WeightsError(f"{path}: has not the same tensors as {self.paths[0].name}: {', '.join(different[:10])}")
        for name in self.names():
            self._check(name)

    def names(self) -> list[str]:
        return list(self.shards[0])

    def shape(self, name: str) -> tuple[int, ...]:
        shape = list(self.shards[0][name].shape)
        cut = self._cut(name)
        if cut is not None:
            shape[cut] = sum(shard[name].shape[cut] for shard in self.shards)
        return tuple(shape)

    def dtype(self, name: str) -> torch.dtype:
        return self.shards[0][name].dtype

    def read(self, name: str) -> Tensor:
        cut = self._cut(name)
        if cut is None:
            return self.shards[0][name].clone()
        return torch.cat([shard[name] for shard in self.shards], cut)

    def _cut(self, name: str) -> int | None:
        """The dimension along which a tensor was cut; None: every file holds all of it."""
        if ROWS.fullmatch(name):
            return 0
        if COLUMNS.fullmatch(name):
            return 1
        if name == "tok_embeddings.weight":  # along the width in LLaMA 1 and 2, along the vocabulary in Llama 3
            return 0 if self.shards[0][name].shape[-1] == self.dim else 1
        return None

    def _check(self, name: str) -> None:
        cut = self._cut(name)
        first = self.shards[0][name]
        for path, shard in zip(self.paths, self.shards, strict=True):
            same = [n for d, n in enumerate(shard[name].shape) if d != cut] == [n for d, n in enumerate(first.shape) if d != cut]
            if not same or shard[name].dtype != first.dtype or (cut is not None and first.ndim != 2):
                here, there = (f"{list(t.shape)} {t.dtype}" for t in (shard[name], first))
                raise WeightsError(f"{path}: {name} is {here}, in {self.paths[0].name} {there}")
            if cut is None and name != "rope.freqs" and not torch.equal(shard[name], first):
                raise WeightsError(f"{path}: {name} differs from that in {self.paths[0].name}, but every file should hold the same")


def _unpickled(path: Path) -> dict[str, Tensor]:
    _check_archive(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, OSError) as error:
        raise WeightsError(f"{path}: is no file of plain tensors: {str(error).splitlines()[0][:200]}") from None
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise WeightsError(f"{path}: is no map from names to tensors")
    for name, tensor in found.items():
        if tensor.layout != torch.strided or not tensor.is_contiguous():  # a stride of nought makes a giant of four bytes
            raise WeightsError(f"{path}: {ascii(name)[:100]} is no contiguous tensor")
    end, before = 0, ""
    for name, tensor in sorted(found.items(), key=lambda item: item[1].data_ptr()):
        if tensor.numel() and tensor.data_ptr() < end:
            raise WeightsError(f"{path}: {ascii(name)[:100]} overlaps {ascii(before)[:100]}")
        if tensor.numel():
            end, before = tensor.data_ptr() + tensor.nbytes, name
    return found


def _check_archive(path: Path) -> None:
    """Raise WeightsError unless the archive is one that torch.save writes: nothing packed, nothing twice, nothing beyond the file."""
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path}: is no file of plain tensors: torch.save has written zip archives since 1.6, and this is none")
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{path}: is no file of plain tensors: {str(error)[:200]}") from None
    if len(entries) > MAX_ENTRIES:
        raise WeightsError(f"{path}: has {len(entries)} entries; such a file has at most {MAX_ENTRIES}")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        what = f"{path}: the entry {ascii(entry.filename)[:100]}"
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise WeightsError(f"{what} is compressed, to {entry.compress_size} of {entry.file_size} bytes; torch.save compresses nothing")
        if entry.header_offset < end or entry.header_offset + entry.file_size > size:
            raise WeightsError(f"{what} overlaps another, or reaches beyond the file")
        if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE:
            raise WeightsError(f"{what} has {entry.file_size} bytes; such a description has at most {MAX_PICKLE}")
        end = entry.header_offset + entry.file_size
