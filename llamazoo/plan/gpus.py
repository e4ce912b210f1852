"""Well-known GPUs, by their makers' data sheets: memory, how fast it is read, and how fast matrices are multiplied.

Rates are those of dense matrices, with sums in float32, in 10^12 operations a second; without TF32 in float32.
"""

from dataclasses import dataclass

import torch

from llamazoo.errors import InputError
from llamazoo.shelf import nearest

__all__ = ["GPUS", "RESERVE", "Gpu", "gpus_named"]

GB = 10**9
RESERVE = GB  # of each GPU's memory, for the driver, kernels and workspaces


@dataclass(frozen=True)
class Gpu:
    """Memory in bytes, bandwidth in bytes a second, rates in operations a second; None where it cannot compute in bfloat16."""

    name: str
    memory: int
    bandwidth: float
    float16: float
    bfloat16: float | None
    float32: float

    def rate(self, dtype: torch.dtype) -> float | None:
        """Operations a second in matrix products of this number type; None if there are none worth telling."""
        return {torch.float16: self.float16, torch.bfloat16: self.bfloat16, torch.float32: self.float32}.get(dtype)


def _gpu(name: str, memory: int, bandwidth: float, half: float, single: float, bfloat16: bool = True) -> Gpu:
    """GB, GB/s, and two rates in 10^12 operations a second."""
    return Gpu(name, memory * GB, bandwidth * 1e9, half * 1e12, half * 1e12 if bfloat16 else None, single * 1e12)


GPUS = (
    _gpu("T4", 16, 320, 65, 8.1, bfloat16=False),
    _gpu("L4", 24, 300, 121, 30.3),
    _gpu("RTX 3090", 24, 936, 71, 35.6),
    _gpu("RTX 4090", 24, 1008, 165, 82.6),
    _gpu("A100 40GB", 40, 1555, 312, 19.5),
    _gpu("L40S", 48, 864, 362, 91.6),
    _gpu("A100 80GB", 80, 2039, 312, 19.5),
    _gpu("H100", 80, 3350, 989, 67),
    _gpu("H200", 141, 4800, 989, 67),
    _gpu("B200", 180, 8000, 2250, 80),
)


def gpus_named(text: str | None) -> tuple[Gpu, ...]:
    """The GPUs of a list such as "A100 80GB, h100"; a name's beginning will do; None: all. InputError for one that is not known."""
    if text is None:
        return GPUS
    found: dict[str, Gpu] = {}
    for asked in (each.strip() for each in text.split(",")):
        matching = [gpu for gpu in GPUS if asked and _plain(gpu.name).startswith(_plain(asked))]
        exact = [gpu for gpu in matching if _plain(gpu.name) == _plain(asked)]
        if not matching:
            known = [gpu.name for gpu in GPUS]
            raise InputError(f"no GPU named {asked!r} is known here; {nearest(asked, known)}known: {', '.join(known)}")
        found |= {gpu.name: gpu for gpu in exact or matching}
    return tuple(found.values())


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum()).removeprefix("rtx")
