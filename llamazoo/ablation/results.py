"""What an ablation found, as data: results.json, and timings.json for what no two runs have in common."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Comparison",
    "Costs",
    "CurvePoint",
    "Effect",
    "FieldDifference",
    "Guessing",
    "LearningRate",
    "Matched",
    "Noise",
    "Outcome",
    "PartsFile",
    "Results",
    "Run",
    "Timing",
    "Timings",
    "Variant",
    "Verdict",
]

Verdict = Literal["better", "worse", "no difference shown", "too few seeds", "unstable"]
Outcome = str
"""What is compared: `loss` at the end, `loss@4x` at four times the trained length, `accuracy`, or `accuracy:<probe>`."""


class Record(BaseModel):
    """What all of these have in common: nothing unknown, nothing that JSON cannot say."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class CurvePoint(Record):
    tokens: int
    """Tokens trained on until then."""
    loss: float
    """Validation loss, nats a token."""
    accuracy: float | None = None


class Run(Record):
    """One trained model."""

    variant: str
    role: Literal["tuning", "evaluation", "noise", "probe"]
    probe: str | None = None
    seed: int
    lr: float
    tokens: int
    """Tokens trained on."""
    outcomes: dict[Outcome, float | None]
    """Its figures at the end; None if it diverged, if the part cannot be built for that length, or if the loss there is not finite."""
    curve: list[CurvePoint]
    training: list[CurvePoint] = []
    """The loss on the batches themselves, averaged between two evaluations."""
    skipped: int = 0
    """Steps without an update, for a loss or gradient that was not finite."""
    diverged: str | None = None
    """Why it ended early."""


class LearningRate(Record):
    lr: float
    losses: list[float | None]
    """Final validation loss of each seed's trial; None where it diverged."""
    chosen: int
    """How many seeds took this rate, since it was the best of their own trials."""


class FieldDifference(Record):
    where: str
    base: str
    variant: str


class Matched(Record):
    """How a variant was brought to the size of the base."""

    what: Literal["parameters", "flops", "none"]
    field: str | None = None
    """The field that was solved for, such as hidden_dim; None if none was needed."""
    value: int | None = None
    target: int
    found: int
    off: float
    """(found - target) / target."""
    beyond: int = 0
    """Parameters that only texts longer than the trained length would use, and so get no gradient: they are not counted in `found`."""


class Costs(Record):
    parameters: int
    active_parameters: int
    flops_per_token: int
    cache_bytes: int
    """Of one row at the trained length."""
    cache_bytes_per_token: int
    """What one more token adds, once windows are full."""


class Comparison(Record):
    """A variant against the base, seed by seed, in one outcome; differences are the variant's less the base's."""

    outcome: Outcome
    better: Literal["lower", "higher"]
    differences: list[float]
    """One for each seed that both finished."""
    mean: float | None
    low: float | None
    """The confidence interval's ends, simultaneous over all that the experiment compares."""
    high: float | None
    p: float | None
    """Two-sided, of a paired t-test."""
    p_adjusted: float | None
    """The same after Holm's correction over all that the experiment compares."""
    effect: float | None
    """Hedges' g of the paired differences."""
    noise: float | None
    """What a mean difference must exceed to be more than two runs of the base differ by."""
    power: float | None
    """The chance that this number of seeds shows the smallest difference that matters, with the spread that was seen."""
    seeds_needed: int | None
    """How many fresh seeds would show it with the power that was asked for."""
    verdict: Verdict
    sentence: str
    """The verdict in words, with its figures."""


class Variant(Record):
    name: str
    spec: dict[str, Any]
    """The canonical spec that was trained."""
    differences: list[FieldDifference]
    """Everything in which it differs from the base."""
    matched: Matched
    costs: Costs
    learning_rates: list[LearningRate]
    lr: float
    """The learning rate with the lowest mean loss over all trials; each run has the one that its own seed chose."""
    at_edge: bool
    """That is the lowest or the highest of several: a wider grid might find a better one."""
    runs: list[Run]
    """Of evaluation, and on probes."""
    comparisons: list[Comparison] = []
    """None for the base."""
    levels: dict[str, str] = {}
    """Of a factorial experiment: which choice of each factor this is."""


class Noise(Record):
    """A/A: the base again, on the same data, from other first values."""

    runs: list[Run]
    differences: dict[Outcome, list[float]]
    """Of each seed, the second run less the first."""
    floor: dict[Outcome, float]
    """What a mean over all seeds must exceed."""


class Guessing(Record):
    """What an accuracy comes to without anything learned."""

    chance: float
    """Of the best answer that is always the same."""
    answers: int
    """How many are counted in an evaluation."""
    most: float
    """The share that as many guesses exceed once in a thousand times: a mean over seeds up to it is not above chance."""

    def reaches(self, shares: Sequence[float]) -> bool:
        """Whether guessing may come to the mean of these; False if there are none."""
        return bool(shares) and sum(shares) / len(shares) <= self.most


class PartsFile(Record):
    """A file of the user's own, of which parts of the compared models were made."""

    file: str
    """Its name, without folders."""
    digest: str
    """The first 16 hexadecimal digits of the SHA-256 of what stood in it."""


class Effect(Record):
    """What changing one factor, or two together, does to an outcome, over all choices of the others."""

    outcome: Outcome
    factors: list[str]
    choices: list[str]
    """Of each factor, the choice that it is changed to."""
    against: list[str] = []
    """And the one that it is changed from."""
    estimate: float
    low: float | None
    """The confidence interval's ends, simultaneous over all effects on this outcome; None where no spread was seen."""
    high: float | None
    p: float
    p_adjusted: float
    """After Holm's correction over all effects on this outcome."""
    aliases: list[str] = []
    """Effects that this fraction of the grid cannot tell from it."""


class Results(Record):
    """results.json: equal for equal experiments on one machine, however often they were interrupted."""

    version: Literal[1] = 1
    name: str
    experiment: dict[str, Any]
    """The experiment's file, with all defaults spelt out."""
    data: dict[str, str | int | float]
    environment: dict[str, str]
    parts: list[PartsFile] = []
    """Files that parts come from, as --parts takes them."""
    plugins: dict[str, str] = {}
    """Installed distributions other than llamazoo that parts come from, with their versions."""
    outcomes: list[Outcome]
    """What was declared to be compared."""
    base: str
    variants: Annotated[list[Variant], Field(min_length=1)]
    """The base first."""
    noise: Noise | None
    effects: list[Effect] = []
    guessing: dict[Outcome, Guessing] = {}
    """Of each declared accuracy whose data say what chance is."""
    earlier: list[int] = []
    """With how many seeds these runs were compared before, in this folder, when some of them were not there yet."""
    warnings: list[str] = []
    """What a reader must not overlook, as it stands in the report."""

    def variant(self, name: str) -> Variant:
        """The variant of that name. Raises KeyError."""
        return {variant.name: variant for variant in self.variants}[name]


class Timing(Record):
    """What one variant took, as the median over its evaluation runs; on a shared machine a hint, no more."""

    train_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    peak_memory_bytes: int | None
    seconds: float
    """All runs together, trials and probes too."""


class Timings(Record):
    """timings.json"""

    version: Literal[1] = 1
    variants: dict[str, Timing]
