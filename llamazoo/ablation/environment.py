"""Where an experiment was run: what its figures may depend on besides the experiment."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from llamazoo.ablation.variants import Candidate

__all__ = ["environment"]

PACKAGES = ("llamazoo", "torch", "numpy", "scipy", "statsmodels")


def environment(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Versions and hardware, and the packages that variants take parts from."""
    found = {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
    for each in candidates:
        found.update(each.spec.distributions)
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["processor"] = _processor()
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda or "unknown"
    return found


def _processor() -> str:
    """What the processor calls itself."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines() if told.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
