"""Where an experiment was run: what its figures may depend on besides the experiment."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch

from llamazoo.ablation.variants import Candidate

__all__ = ["environment", "machine"]

PACKAGES = ("numpy", "scipy", "statsmodels")


def environment(candidates: Sequence[Candidate], machines: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What the runs were done with, all of it where they differ; and the packages of variants and of the statistics, as they are here."""
    seen: dict[str, set[str]] = {}
    for told in machines:
        for name, value in told.items():
            seen.setdefault(name, set()).add(value)
    found = {name: metadata.version(name) for name in PACKAGES}
    for each in candidates:
        found.update(each.spec.distributions)
    return {**found, **{name: ", ".join(sorted(values)) for name, values in seen.items()}}


def machine(device: torch.device) -> dict[str, str]:
    """What a run's figures may depend on where it is done: versions, processor, and the GPU if it is done there."""
    found = {"python": platform.python_version(), **{name: metadata.version(name) for name in ("llamazoo", "torch")}}
    found |= {"system": f"{platform.system()} {platform.machine()}", "processor": _processor(), "device": device.type}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda or "unknown"}
    return found


def _processor() -> str:
    """What the processor calls itself."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines() if told.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
