"""What an experiment needs before anything is trained, and all that can be wrong until then."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llamazoo.ablation.experiment import Experiment, check_vocabulary
from llamazoo.ablation.launch import Launcher, at_once, check_found_elsewhere, launcher_of
from llamazoo.ablation.measure import reaches
from llamazoo.ablation.outcomes import length_of
from llamazoo.ablation.plan import Job, Plan
from llamazoo.ablation.trial import tried
from llamazoo.ablation.variants import BASE
from llamazoo.build import build_model
from llamazoo.data.config import open_data
from llamazoo.data.example import DataSet
from llamazoo.device import device_of, devices
from llamazoo.errors import DataError, Problem, SpecError, UnsupportedError
from llamazoo.registry import Registry
from llamazoo.training.code import refuse_edited
from llamazoo.training.fit import check_compiles

__all__ = ["Prepared", "opened", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """An experiment that can begin."""

    plan: Plan
    data: dict[str | None, DataSet]
    """What is trained on, and the probes by name; None names the data."""
    launcher: Launcher
    registry: Registry
    """Where the experiment found its parts."""
    jobs: tuple[Job, ...]
    """All runs, with the lowest learning rate in place of those that are chosen on the way."""
    at_once: int
    """How many of them are done at a time."""


def prepare(
    experiment: Experiment,
    *,
    launcher: str = "sequential",
    workers: int | None = None,
    parts: Sequence[Path] = (),
    device: str | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Prepared:
    """The plan and the data of an experiment, once all that can be checked has been.

    Raises UnsupportedError for a launcher or a device that there is not, for a model that cannot be compiled, and for parts that
    other processes would not find; SpecError naming the variant, also one that sees what it has to predict, and naming data that does
    not fit the length of examples; DataError; PluginError for a part that was edited after it was imported. An error of a part, in
    evaluation, in decoding or at a length that an outcome declares, has a note that names its variant.
    """
    found, where = launcher_of(launcher), _where(device, launcher)
    data = opened(experiment, cache)
    for each in experiment.candidates:
        shapes = build_model(each.spec, device="meta")
        refuse_edited(shapes)
        for probe in (None, *experiment.probes):
            check_compiles(shapes, experiment.training_on(probe), repr(each.name))
    _check_lengths(experiment)
    _check_examples(experiment, data)
    fingerprints = {name: each.fingerprint for name, each in data.items()}
    plan = Plan(experiment, fingerprints, where)
    left_out = _try_all(experiment, plan.all_jobs(), plan.candidates[0].spec.registry)
    if left_out:
        plan = Plan(experiment, fingerprints, where, left_out)
    jobs = tuple(plan.all_jobs())
    if launcher != "sequential":
        check_found_elsewhere(jobs, tuple(parts))
    return Prepared(plan, data, found, plan.candidates[0].spec.registry, jobs, at_once(launcher, jobs, workers))


def opened(experiment: Experiment, cache: str | os.PathLike[str] | None = None) -> dict[str | None, DataSet]:
    """The data of an experiment, and its probes by name; None names the data. Raises SpecError if a vocabulary is too small for it."""
    sources: list[tuple[str | None, dict[str, Any]]] = [(None, experiment.data), *experiment.probes.items()]
    place = None if cache is None else Path(cache)
    found = {name: open_data(data, place, folder=experiment.folder) for name, data in sources}
    check_vocabulary(experiment, found)
    return found


def _where(device: str | None, launcher: str) -> str:
    """The device of the runs: the processor unless given."""
    if device is None:
        return "cpu"
    if launcher == "ray" and device != "cpu":  # another machine has it, or not: Ray knows, and says which of several
        if device != "cuda":
            raise UnsupportedError(f"Ray chooses a device of its machines by itself; say cpu or cuda, not {device!r}")
        return device
    found = device_of(device)
    if found.type != "cpu" and str(found) not in devices():
        raise UnsupportedError(f"nothing can be trained on {device!r} here; here are: {', '.join(devices())}")
    return "cpu" if found == torch.device("cpu") else str(found)


def _check_lengths(experiment: Experiment) -> None:
    """Raise SpecError for variants that cannot be compared at a length that was declared."""
    problems = [
        Problem(
            ("outcomes", index),
            f"{each.name!r} cannot be built for {length * experiment.train.seq_len} tokens with the weights of a shorter context; "
            f"give the base max_seq_len: {length * experiment.train.seq_len}, so that all are built with room for it",
        )
        for index, outcome in enumerate(experiment.outcomes)
        if (length := length_of(outcome)) is not None
        for each in experiment.candidates
        if not reaches(each.spec, length * experiment.train.seq_len)
    ]
    if problems:
        raise SpecError(*problems)


def _check_examples(experiment: Experiment, data: Mapping[str | None, DataSet]) -> None:
    """Raise SpecError for data of which not one example can be made at the length that is trained."""
    problems = []
    for name, found in data.items():
        training = experiment.training_on(name)
        try:
            found.training(training.seq_len, 0), found.validation(training.seq_len)
        except DataError as error:
            field = "train" if training is experiment.train else "probe_train"
            problems.append(Problem(("data",) if name is None else ("probes", name), f"{error} ({field}.seq_len is {training.seq_len})"))
    if problems:
        raise SpecError(*problems)


def _try_all(experiment: Experiment, jobs: Sequence[Job], registry: Registry) -> dict[str, dict[int, str]]:
    """At which lengths each variant is not measured, and why. Raises SpecError for variants that see what they must not.

    A variant that fails, at a length that an outcome declares too, ends it; where none does, the length is left out of its figures.
    """
    declared = {length for outcome in experiment.outcomes if (length := length_of(outcome)) is not None}
    found = {name: tried([job for job in jobs if job.variant == name], registry, declared) for name in {job.variant: None for job in jobs}}
    problems = [
        Problem((BASE,) if name == BASE else ("variants", name), f"cannot be compared: {each.sees}; `llamazoo plugin check` says more")
        for name, each in found.items()
        if each.sees is not None
    ]
    if problems:
        raise SpecError(*problems)
    return {name: each.too_long for name, each in found.items() if each.too_long}
