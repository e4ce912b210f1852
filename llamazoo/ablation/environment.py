"""Where an experiment was run: what its figures may depend on besides the experiment."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch

from llamazoo.ablation.results import PartsFile
from llamazoo.ablation.variants import Candidate
from llamazoo.contract.source import Source, source_of
from llamazoo.discovery import LOCAL, OWN

__all__ = ["environment", "machine", "parts_of", "plugins_of"]

PACKAGES = ("numpy", "scipy", "statsmodels")


def environment(candidates: Sequence[Candidate], machines: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What the runs were done with, all of it where they differ; and the packages of variants and of the statistics, as they are here."""
    seen: dict[str, set[str]] = {}
    for told in machines:
        for name, value in told.items():
            seen.setdefault(name, set()).add(value)
    found = {name: metadata.version(name) for name in PACKAGES}
    for each in candidates:
        found.update({name: version for name, version in each.spec.distributions.items() if name != LOCAL})
        found.update({name: "made in a program, without a file" for name, source in _made(each).items() if source.file is None})
    digests: dict[str, list[str]] = {}
    for file in parts_of(candidates):
        digests.setdefault(file.file, []).append(file.digest)
    found.update({name: f"a file of yours, SHA-256 {' and '.join(f'{d}…' for d in told)}" for name, told in digests.items()})
    return {**found, **{name: ", ".join(sorted(values)) for name, values in seen.items()}}


def parts_of(candidates: Sequence[Candidate]) -> list[PartsFile]:
    """The files that the candidates' parts come from, of those that belong to no distribution, by name."""
    sources = [source for each in candidates for source in _made(each).values()]
    found = {(source.file.name, source.digest) for source in sources if source.file is not None}
    return [PartsFile(file=file, digest=digest) for file, digest in sorted(found)]


def plugins_of(candidates: Sequence[Candidate]) -> dict[str, str]:
    """The distributions besides llamazoo that the candidates' parts come from, with their versions, by name."""
    found = {name: version for each in candidates for name, version in each.spec.distributions.items()}
    return {name: version for name, version in sorted(found.items()) if name not in (OWN, LOCAL)}


def _made(candidate: Candidate) -> dict[str, Source]:
    """Where the parts that belong to no distribution come from."""
    return {f"{part.kind} {part.name}": source_of(part) for part in candidate.spec.made}


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
