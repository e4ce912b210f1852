"""The plan of an experiment: every run that it takes, as data from which the run follows, before anything is run.

There are two stages. First each variant is tried at each learning rate, once for each seed and apart from that seed's evaluation; then
each seed evaluates it at the rate that was best in its own trial, and the base once more from other first values, so that it is known
what two runs of one model differ by. With one choice for all seeds, a rate that was chosen by bad luck would be a difference in every
seed, which no test over seeds could tell from one that is real.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from llamazoo.ablation.experiment import Experiment
from llamazoo.ablation.outcomes import probe_of
from llamazoo.ablation.results import LearningRate, Run
from llamazoo.ablation.variants import BASE, Candidate
from llamazoo.build import build_model
from llamazoo.errors import TrainingError
from llamazoo.training.code import code_of
from llamazoo.training.recipe import Recipe

__all__ = ["Choice", "Job", "Plan", "Role", "best_rate", "choose", "plan"]

Role = Literal["tuning", "evaluation", "noise", "probe"]

VERSION = 3  # of what a job means: a change of it makes every run a new one
TUNING, NOISE = 10_000, 20_000  # what is added to a seed in these roles: seeds are below 9,000
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
    left_out: list[int] = []
    """Multiples at which this model fails, and which no outcome asks for: their loss is None."""
    device: str = "cpu"
    """Where it is computed; which of several of one sort is not in the key."""

    @property
    def key(self) -> str:
        """16 hexadecimal digits of all that the result follows from; what a variant is called is not among that."""
        told = self.model_dump(mode="json", exclude={"variant", "role", "probe", "seed", "data"})
        told["device"] = self.device.partition(":")[0]
        if not self.fingerprint:
            told["data"] = self.data
        text = json.dumps({"version": VERSION, **told}, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def tokens(self) -> int:
        """Tokens that it is trained on, whole examples."""
        return self.recipe.examples * self.recipe.seq_len


class Choice(NamedTuple):
    """The learning rates of a variant, and how they were found."""

    by_seed: dict[int, float]
    """Of each seed, the rate that was best in its own trial."""
    lr: float
    """The rate with the lowest mean over all trials."""
    at_edge: bool
    """That one is the lowest or the highest of several: a wider grid might find a better one."""
    curve: list[LearningRate]


class Plan:
    """Every run of an experiment, in the order in which they are worth running: by seed, all variants side by side."""

    def __init__(
        self,
        experiment: Experiment,
        fingerprints: Mapping[str | None, str] | None = None,
        device: str = "cpu",
        left_out: Mapping[str, Mapping[int, str]] | None = None,
    ) -> None:
        """`fingerprints` of the data, and of the probes by name, once they are open; None names the data.

        `left_out` are the lengths at which a variant is not measured, and why.
        """
        self.experiment = experiment
        self.candidates = experiment.candidates
        self.fingerprints = fingerprints or {}
        self.device = device
        self.left_out = left_out or {}
        self.code = {each.name: code_of(build_model(each.spec, device="meta")) for each in self.candidates}

    def tuning_jobs(self) -> list[Job]:
        """The first stage: for each seed, each variant at each learning rate; none if there is only one rate."""
        experiment = self.experiment
        if len(experiment.train.rates) == 1:
            return []
        return [
            self._job(each, "tuning", None, seed, experiment.train.at(lr))
            for seed in experiment.seed_numbers
            for each in self.candidates
            for lr in experiment.train.rates
        ]

    def final_jobs(self, chosen: Mapping[str, Mapping[int, float]]) -> list[Job]:
        """The second stage, at the learning rate of each variant and seed: evaluation, noise, probes. Raises KeyError for one without."""
        return list(self._final(chosen))

    def all_jobs(self) -> list[Job]:
        """As many as there will be, with the lowest learning rate in place of those that are chosen on the way."""
        any_rate = dict.fromkeys(self.experiment.seed_numbers, self.experiment.train.rates[0])
        return [*self.tuning_jobs(), *self.final_jobs({each.name: any_rate for each in self.candidates})]

    def _final(self, chosen: Mapping[str, Mapping[int, float]]) -> Iterator[Job]:
        experiment = self.experiment
        measured = {probe_of(outcome) for outcome in experiment.outcomes}
        for seed in experiment.seed_numbers:
            for each in self.candidates:
                yield self._job(each, "evaluation", None, seed, experiment.train.at(chosen[each.name][seed]))
            if experiment.noise:
                yield self._job(self.candidates[0], "noise", None, seed, experiment.train.at(chosen[BASE][seed]))
            for probe in experiment.probes:
                training = experiment.training_on(probe)
                for each in self.candidates:
                    yield self._job(each, "probe", probe, seed, training.at(chosen[each.name][seed]))
                if experiment.noise and probe in measured:  # its floor is asked for
                    yield self._job(self.candidates[0], "noise", probe, seed, training.at(chosen[BASE][seed]))

    def _job(self, candidate: Candidate, role: Role, probe: str | None, seed: int, recipe: Recipe) -> Job:
        """Of equal seed, all variants have the same first values where they are alike, and the same order of examples."""
        experiment = self.experiment
        spec = {name: value for name, value in candidate.spec.canonical().items() if name != "about"}
        own = {"tuning": TUNING, "noise": NOISE}.get(role, 0) + STRIDE * candidate.spec.init.seed
        lengths = experiment.lengths if role in ("evaluation", "noise") and probe is None else []
        left_out = self.left_out.get(candidate.name, {})
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
            lengths=[length for length in lengths if length not in left_out],
            left_out=[length for length in lengths if length in left_out],
            device=self.device,
        )


def plan(experiment: Experiment, fingerprints: Mapping[str | None, str] | None = None) -> Plan:
    """The runs that an experiment takes. Raises SpecError naming each variant that is wrong."""
    return Plan(experiment, fingerprints)


def choose(experiment: Experiment, tuned: Iterable[Run]) -> dict[str, Choice]:
    """The learning rates of each variant: each seed takes the one with the lowest loss at the end of its own trial.

    So the choice is part of what a seed stands for, and its luck is among the noise that the test over seeds sees. A rate at which a
    run diverged is only taken where there is no other; of equal ones the lower is. A variant that diverged at each gets the lowest,
    and its evaluation will tell whether it is unstable. Raises TrainingError where the base diverged in all of its trials, since there
    is nothing to compare with then, and where a run of the plan is missing.
    """
    rates, seeds, losses = experiment.train.rates, experiment.seed_numbers, _losses(tuned)
    if len(rates) == 1:
        alone, curve = dict.fromkeys(seeds, rates[0]), [LearningRate(lr=rates[0], losses=[], chosen=len(seeds))]
        return {each.name: Choice(alone, rates[0], False, curve) for each in experiment.candidates}
    chosen = {}
    for each in experiment.candidates:
        wanted = [(each.name, lr, seed) for lr in rates for seed in seeds]
        missing = [key for key in wanted if key not in losses]
        if missing:
            name, lr, seed = missing[0]
            raise TrainingError(f"{len(missing)} of {len(wanted)} tuning runs of {name!r} are missing, the first: lr {lr:g}, seed {seed}")
        tried = {lr: [losses[each.name, lr, seed] for seed in seeds] for lr in rates}
        if each.name == BASE and all(loss is None for line in tried.values() for loss in line):
            told = ", ".join(f"{lr:g}" for lr in rates)
            raise TrainingError(f"the base diverged at every learning rate ({told}): there is nothing to compare with; try lower ones")
        by_seed = {seed: best_rate({lr: tried[lr][i] for lr in rates}) for i, seed in enumerate(seeds)}
        best = min(rates, key=lambda lr: _merit(lr, tried[lr]))
        curve = [LearningRate(lr=lr, losses=line, chosen=list(by_seed.values()).count(lr)) for lr, line in tried.items()]
        chosen[each.name] = Choice(by_seed, best, best in (rates[0], rates[-1]), curve)
    return chosen


def best_rate(tried: Mapping[float, float | None]) -> float:
    """The learning rate that one seed takes, of the losses at the end of its trials; None where one diverged."""
    return min(sorted(tried), key=lambda lr: _merit(lr, [tried[lr]]))


def _losses(tuned: Iterable[Run]) -> dict[tuple[str, float, int], float | None]:
    """Final losses by variant, rate and seed; None where a run diverged."""
    runs = (run for run in tuned if run.role == "tuning")
    return {(run.variant, run.lr, run.seed): None if run.diverged else run.outcomes.get("loss") for run in runs}


def _merit(lr: float, losses: list[float | None]) -> tuple[int, float, float]:
    """The less, the better: how many runs diverged, the mean loss of the others, the rate."""
    finished = [loss for loss in losses if loss is not None]
    return len(losses) - len(finished), sum(finished) / len(finished) if finished else 0.0, lr
