"""The plan of an experiment: every run that it takes, as data from which the run follows, before anything is run.

There are two stages. First each variant is tried at each learning rate, on seeds of its own; then, at the rate that was chosen for
it, it is evaluated, and the base once more from other first values, so that it is known what two runs of one model differ by.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from llamazoo.ablation.code import code_of
from llamazoo.ablation.experiment import Experiment
from llamazoo.ablation.outcomes import probe_of
from llamazoo.ablation.results import LearningRate, Run
from llamazoo.ablation.variants import BASE, Candidate
from llamazoo.errors import TrainingError
from llamazoo.training.recipe import Recipe

__all__ = ["Choice", "Job", "Plan", "Role", "choose", "plan"]

Role = Literal["tuning", "evaluation", "noise", "probe"]

VERSION = 1  # of what a job means: a change of it makes every run a new one
TUNING, NOISE = 10_000, 20_000  # the first seeds of these roles: there are at most 1,000 of each
STRIDE = 1_000_000  # between the seeds of specs whose own seeds differ by one


class Job(BaseModel):
    """One run: all that its result follows from, and what the result is for."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    variant: str
    role: Role
    probe: str | None = None
    """The probe it is trained on; None: the data."""
    seed: int
    """Which of the experiment's seeds of this role it is."""
    spec: dict[str, Any]
    """The canonical spec, with the seed of its first values."""
    recipe: Recipe
    data: dict[str, Any]
    fingerprint: str = ""
    """A hash of all that the examples follow from; a file may change while its name stays."""
    code: dict[str, str] = {}
    """Versions, and hashes of the sources of parts."""
    data_seed: int
    """Of the order of the examples."""
    lengths: list[int] = []
    """Multiples of the trained length at which the loss is measured at the end."""

    @property
    def key(self) -> str:
        """16 hexadecimal digits of all that the result follows from; what a variant is called is not among that."""
        told = self.model_dump(mode="json", exclude={"variant", "role", "probe", "seed", "data"})
        if not self.fingerprint:
            told["data"] = self.data
        text = json.dumps({"version": VERSION, **told}, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def tokens(self) -> int:
        """Tokens that it is trained on, whole examples."""
        return self.recipe.examples * self.recipe.seq_len


class Choice(NamedTuple):
    """The learning rate of a variant, and how it was found."""

    lr: float
    at_edge: bool
    """It is the lowest or the highest of several: a wider grid might find a better one."""
    curve: list[LearningRate]


class Plan:
    """Every run of an experiment, in the order in which they are worth running: by seed, all variants side by side."""

    def __init__(self, experiment: Experiment, fingerprints: Mapping[str | None, str] | None = None) -> None:
        """`fingerprints` of the data, and of the probes by name, once they are open; None names the data."""
        self.experiment = experiment
        self.candidates = experiment.candidates
        self.fingerprints = fingerprints or {}
        self.code = {each.name: code_of(each.spec) for each in self.candidates}

    def tuning_jobs(self) -> list[Job]:
        """The first stage: each variant at each learning rate; none if there is only one rate."""
        experiment = self.experiment
        if len(experiment.train.rates) == 1:
            return []
        return [
            self._job(each, "tuning", None, seed, experiment.train.at(lr))
            for seed in range(experiment.tuning_seeds)
            for each in self.candidates
            for lr in experiment.train.rates
        ]

    def final_jobs(self, chosen: Mapping[str, float]) -> list[Job]:
        """The second stage, at the learning rate of each variant by name: evaluation, noise, probes. Raises KeyError for one without."""
        return list(self._final(chosen))

    def _final(self, chosen: Mapping[str, float]) -> Iterator[Job]:
        experiment = self.experiment
        measured = {probe_of(outcome) for outcome in experiment.outcomes}
        for seed in experiment.seed_numbers:
            for each in self.candidates:
                yield self._job(each, "evaluation", None, seed, experiment.train.at(chosen[each.name]))
            if experiment.noise:
                yield self._job(self.candidates[0], "noise", None, seed, experiment.train.at(chosen[BASE]))
            for probe in experiment.probes:
                training = experiment.training_on(probe)
                for each in self.candidates:
                    yield self._job(each, "probe", probe, seed, training.at(chosen[each.name]))
                if experiment.noise and probe in measured:  # its floor is asked for
                    yield self._job(self.candidates[0], "noise", probe, seed, training.at(chosen[BASE]))

    def _job(self, candidate: Candidate, role: Role, probe: str | None, seed: int, recipe: Recipe) -> Job:
        """Of equal seed, all variants have the same first values where they are alike, and the same order of examples."""
        experiment = self.experiment
        spec = {name: value for name, value in candidate.spec.canonical().items() if name != "about"}
        own = {"tuning": TUNING, "noise": NOISE}.get(role, 0) + STRIDE * candidate.spec.init.seed
        return Job(
            variant=candidate.name,
            role=role,
            probe=probe,
            seed=seed,
            spec={**spec, "init": {**spec["init"], "seed": own + seed}},
            recipe=recipe,
            data=experiment.data if probe is None else experiment.probes[probe],
            fingerprint=self.fingerprints.get(probe, ""),
            code=self.code[candidate.name],
            data_seed=seed + (TUNING if role == "tuning" else 0),
            lengths=experiment.lengths if role in ("evaluation", "noise") and probe is None else [],
        )


def plan(experiment: Experiment, fingerprints: Mapping[str | None, str] | None = None) -> Plan:
    """The runs that an experiment takes. Raises SpecError naming each variant that is wrong."""
    return Plan(experiment, fingerprints)


def choose(experiment: Experiment, tuned: Iterable[Run]) -> dict[str, Choice]:
    """The learning rate of each variant: of all that were tried, the one with the lowest mean loss at the end.

    A rate at which a run diverged is only taken where there is no other; of equal ones the lower is. A variant that diverged at
    each gets the lowest, and its evaluation will tell whether it is unstable. Raises TrainingError where the base did, since there is
    nothing to compare with then, and where a run of the plan is missing.
    """
    rates, losses = experiment.train.rates, _losses(tuned)
    if len(rates) == 1:
        return {each.name: Choice(rates[0], False, [LearningRate(lr=rates[0], losses=[])]) for each in experiment.candidates}
    chosen = {}
    for each in experiment.candidates:
        wanted = [(each.name, lr, seed) for lr in rates for seed in range(experiment.tuning_seeds)]
        missing = [key for key in wanted if key not in losses]
        if missing:
            name, lr, seed = missing[0]
            raise TrainingError(f"{len(missing)} of {len(wanted)} tuning runs of {name!r} are missing, the first: lr {lr:g}, seed {seed}")
        curve = [LearningRate(lr=lr, losses=[losses[each.name, lr, seed] for seed in range(experiment.tuning_seeds)]) for lr in rates]
        if each.name == BASE and all(loss is None for point in curve for loss in point.losses):
            tried = ", ".join(f"{lr:g}" for lr in rates)
            raise TrainingError(f"the base diverged at every learning rate ({tried}): there is nothing to compare with; try lower ones")
        lr = min(curve, key=_merit).lr
        chosen[each.name] = Choice(lr, lr in (rates[0], rates[-1]), curve)
    return chosen


def _losses(tuned: Iterable[Run]) -> dict[tuple[str, float, int], float | None]:
    """Final losses by variant, rate and seed; None where a run diverged."""
    runs = (run for run in tuned if run.role == "tuning")
    return {(run.variant, run.lr, run.seed): None if run.diverged else run.outcomes.get("loss") for run in runs}


def _merit(point: LearningRate) -> tuple[int, float, float]:
    """The less, the better: how many runs diverged, the mean loss of the others, the rate."""
    finished = [loss for loss in point.losses if loss is not None]
    mean = sum(finished) / len(finished) if finished else 0.0
    return len(point.losses) - len(finished), mean, point.lr
