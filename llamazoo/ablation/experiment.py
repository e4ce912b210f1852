"""The experiment file: what is compared with what, on which data, how it is trained, and what counts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from llamazoo.ablation.factors import Fraction, choice_told, combinations_of
from llamazoo.ablation.match import Measure
from llamazoo.ablation.outcomes import SMALLEST, better, length_of, probe_of, smallest_of, sort_of
from llamazoo.ablation.recipes import ExperimentTraining, ProbeTraining, read_training
from llamazoo.ablation.results import Outcome
from llamazoo.ablation.variants import BASE, Candidate, Change, candidates
from llamazoo.contract.options import Positive
from llamazoo.data.config import PROBES, SOURCES, read_data
from llamazoo.data.example import DataSet
from llamazoo.errors import Problem, SpecError
from llamazoo.parts import registry_with
from llamazoo.registry import Registry, default_registry
from llamazoo.shelf import nearest
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import load_spec
from llamazoo.spec.overrides import changed
from llamazoo.spec.problems import explain, shown
from llamazoo.spec.yaml import read_yaml_file

__all__ = ["Experiment", "check_vocabulary", "read_experiment"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # what Windows has devices by
TEXTS = tuple(name for name, sort in SOURCES.items() if sort not in PROBES)  # of which every token is a target, and no answer


def _named(name: str) -> str:
    if RESERVED.fullmatch(name):
        raise SpecError(f"{name!a} cannot name a file on every machine: it is a device of Windows; use another name")
    if not NAME.fullmatch(name) or name.endswith("."):
        told = "use letters, digits and . _ -, at most 60, beginning with a letter or digit"
        raise SpecError(f"{name[:80]!a} cannot name a file on every machine; {told}")
    return name


def _data(value: dict[str, Any]) -> dict[str, Any]:
    """Checked here, and opened when the experiment is run."""
    read_data(value)
    return value


def _by_name(value: Any) -> Any:
    """Maps by names that files may have, with paths that hold whatever a name is."""
    if not isinstance(value, Mapping):
        raise SpecError(f"expected a map from names to maps, found {shown(value)}")
    problems: list[Problem] = []
    for name, inner in value.items():
        try:
            _named(name if isinstance(name, str) else shown(name))
        except SpecError as error:
            problems += error.problems
        if not isinstance(inner, Mapping):
            problems.append(Problem((str(name)[:80],), f"expected a map, found {shown(inner)}"))
    if problems:
        raise SpecError(*problems)
    return {name: dict(inner) for name, inner in value.items()}


def _sourced(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, data in value.items():
        try:
            _data(data)
        except SpecError as error:
            raise error.under(name) from None
    return value


Data = Annotated[dict[str, Any], AfterValidator(_data)]
ByName = Annotated[dict[str, dict[str, Any]], BeforeValidator(_by_name)]
Share = Annotated[float, Field(gt=0, lt=1)]
Level = Annotated[float, Field(ge=1e-4, le=0.5)]  # what is found at levels beyond is of the normal distribution's far tail, not of the runs
Seeds = Annotated[int, Field(ge=1, le=1000)]


class Experiment(BaseModel):
    """A base, what is changed in it, and how the difference is found out."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    version: Literal[1] = 1
    """The version of this format."""
    name: Annotated[str, AfterValidator(_named)] = "experiment"
    """What its results are called; the file's own name unless given."""
    base: str | dict[str, Any]
    """What variants are compared with: a zoo name, a spec's file or a model's folder (seen from the experiment's file), or a spec."""
    variants: ByName = {}
    """Changes to the base, each with a name: a map as `overrides` take, dotted keys too."""
    factors: dict[str, list[Any]] = {}
    """A grid instead of variants: fields of the spec, each with its choices, all combined."""
    fraction: Fraction = 1
    """How much of the grid is run: 1, or of factors with two choices 1/2 or 1/4, which keeps main effects apart from each other."""
    match: Measure = "parameters"
    """In what every variant is brought within 0.5 % of the base, by the width of its feed-forwards: parameters, flops, or none."""
    data: Data
    """What is trained on: its `source`, and that source's options."""
    probes: Annotated[ByName, AfterValidator(_sourced)] = {}
    """Further data, on each of which every variant is trained and measured by itself."""
    train: Annotated[ExperimentTraining, BeforeValidator(read_training(ExperimentTraining))]
    """How each model is trained, and the learning rates to choose from."""
    probe_train: Annotated[ProbeTraining | None, BeforeValidator(read_training(ProbeTraining))] = None
    """How each is trained on a probe; as on the data unless given."""
    seeds: Seeds = 5
    """Runs of each variant: of equal seed, all variants see the same data in the same order, and equal parameters start equal. Of
    several learning rates, each seed tries all, with other first values and another order, and takes its best."""
    first_seed: Annotated[int, Field(ge=0, le=8000)] = 0
    """The first of them. An experiment that is repeated with more seeds, since it had too few, is sound if they are fresh ones."""
    noise: bool = True
    """Whether the base is trained once more for each seed, from other first values: what two runs of one model differ by."""
    outcomes: Annotated[list[Outcome], Field(min_length=1)] = ["loss"]
    """What is compared, declared in advance: loss, loss@4x, accuracy, accuracy:<probe>."""
    lengths: list[Annotated[int, Field(ge=1, le=64)]] = [1, 2, 4]
    """Multiples of the trained length at which the loss is measured, where a variant can be built for them; of a probe, 1 alone."""
    alpha: Level = 0.05
    """The chance that is taken of declaring any difference from the base where there is none; of a grid, any effect on one outcome, too."""
    power: Share = 0.8
    """The chance with which the smallest difference that matters is to be found."""
    smallest: Positive | dict[str, Positive] = dict(SMALLEST)
    """The smallest difference that matters, in nats a token or as a share: for all outcomes, or by sort or name of outcome."""

    _registry: Registry | None = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _candidates: tuple[Candidate, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self._on_probe and "lengths" not in self.model_fields_set:
            object.__setattr__(self, "lengths", [1])
        problems = [*self._wrong_variants(), *self._wrong_data(), *self._wrong_outcomes()]
        if problems:
            raise SpecError(*problems)
        if isinstance(self.smallest, dict):  # what is not given is as usual
            object.__setattr__(self, "smallest", {**SMALLEST, **self.smallest})
        return self

    def _wrong_variants(self) -> Iterator[Problem]:
        if self.variants and self.factors:
            told = "goes without `factors`: a variant is compared with the base, a factor's choices among each other; make two experiments"
            yield Problem(("variants",), told)
        elif not self.variants and not self.factors:
            yield Problem(("variants",), "at least one is needed to compare the base with, such as {layernorm: {norm: layernorm}}")
        if self.fraction != 1 and not self.factors:
            yield Problem(("fraction",), "is one of a grid; it goes with `factors`")
        known: dict[str, str] = {}
        for name in self.variants:
            if name.lower() == BASE:
                yield Problem(("variants", name), "is what the base itself is called; use another name")
            if name.lower() in known:
                yield Problem(("variants", name), f"some machines cannot tell its files from those of {known[name.lower()]!r}")
            known.setdefault(name.lower(), name)
            if not self.variants[name]:
                yield Problem(("variants", name), "changes nothing; it is a map of changes, such as {norm: layernorm}")

    def _wrong_data(self) -> Iterator[Problem]:
        if self.probe_train is not None and not self.probes:
            yield Problem(("probe_train",), "is how models are trained on `probes`, of which there are none")
        told: dict[str, str] = {}
        for name, data in self.probes.items():
            if data["source"] in TEXTS:
                yield Problem(("probes", name, "source"), f"{data['source']} is text, without answers that are right or wrong; use a probe")
            same = told.setdefault(choice_told(data), name)
            if same != name:
                yield Problem(("probes", name), f"is the same data as {same!r}")

    def _wrong_outcomes(self) -> Iterator[Problem]:
        for i, outcome in enumerate(self.outcomes):
            reason = self._unmeasurable(outcome)
            if outcome in self.outcomes[:i]:
                reason = "stands here twice"
            if reason is not None:
                yield Problem(("outcomes", i), reason)
        if self._on_probe and self.lengths and max(self.lengths) > 1:
            yield Problem(("lengths",), f"{max(self.lengths)}: {self._no_longer}; leave `lengths` out")
        if len(set(self.lengths)) < len(self.lengths):
            yield Problem(("lengths",), "one of them stands here twice")
        if isinstance(self.smallest, dict):
            known = {*self.outcomes, "loss", "accuracy"}
            for name in sorted(set(self.smallest) - known):
                yield Problem(("smallest", name), f"no such outcome; {nearest(name, known)}known here: {', '.join(sorted(known))}")

    def _unmeasurable(self, outcome: Outcome) -> str | None:
        """Why an outcome is not measured in this experiment, or None."""
        sort, length, probe = sort_of(outcome), length_of(outcome), probe_of(outcome)
        if sort is None:
            known = ["loss", *(f"loss@{n}x" for n in self.lengths if n > 1), "accuracy", *(f"accuracy:{name}" for name in self.probes)]
            return f"no outcome is called {shown(outcome)}; {nearest(outcome, known)}known here: {', '.join(known)}"
        if length == 1:
            return "loss@1x is the loss itself; write loss"
        if length is not None and self._on_probe:
            return f"{outcome} is not measured: {self._no_longer}"
        if length is not None and length not in self.lengths:
            return f"{outcome} is not measured: `lengths` has {', '.join(map(str, self.lengths)) or 'none'}; add {length}"
        if probe is not None and probe not in self.probes:
            hint = nearest(probe, self.probes)
            return f"no probe is named {shown(probe)}; {hint}`probes` has {', '.join(self.probes) or 'none'}"
        if outcome == "accuracy" and not self._on_probe:
            each = ", ".join(f"accuracy:{name}" for name in self.probes) or "the data a probe, or name some under `probes`"
            return f"the source {self.data['source']} is text, without answers that are right or wrong; make it {each}"
        return None

    @property
    def _on_probe(self) -> bool:
        """Whether the data themselves are a probe."""
        return self.data["source"] not in TEXTS

    @property
    def _no_longer(self) -> str:
        return f"the tasks of {self.data['source']} have one length, and a longer text has more of them, none of which sees another"

    @property
    def seed_numbers(self) -> range:
        """The seeds of evaluation."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def folder(self) -> Path:
        """Where the experiment's file is, from which names of files count."""
        return self._folder

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The base and all variants, matched and checked; made once. Raises SpecError naming each variant that is wrong."""
        if not self._candidates:
            self._candidates = self._made(self._registry or default_registry())
        return self._candidates

    def candidate(self, name: str) -> Candidate:
        """The variant of that name, or the base. Raises KeyError."""
        return {each.name: each for each in self.candidates}[name]

    def smallest_of(self, outcome: Outcome) -> float:
        """The smallest difference that matters in an outcome."""
        return smallest_of(outcome, self.smallest)

    def better(self, outcome: Outcome) -> Literal["lower", "higher"]:
        """Which way an outcome improves."""
        return better(outcome)

    def training_on(self, probe: str | None) -> ExperimentTraining | ProbeTraining:
        """How models are trained on the data, or on a probe."""
        return self.train if probe is None or self.probe_train is None else self.probe_train

    def _made(self, registry: Registry) -> tuple[Candidate, ...]:
        changes = {name: Change(("variants", name), overrides) for name, overrides in self.variants.items()}
        for cell in combinations_of(self.factors, self.fraction) if self.factors else ():
            told = ", ".join(f"{path}={level}" for path, level in cell.levels.items())
            changes[cell.name] = Change(("factors", told), cell.overrides, cell.levels)
        made = candidates(self._base(registry), changes, self.match, self.train.seq_len)
        wanted = {"train": self.train.seq_len} | ({} if self.probe_train is None else {"probe_train": self.probe_train.seq_len})
        problems = [
            Problem((field, "seq_len"), f"{length} tokens are more than max_seq_len of {each.name!r}, {each.spec.max_seq_len}")
            for field, length in wanted.items()
            for each in made
            if length > each.spec.max_seq_len
        ]
        if problems:
            raise SpecError(*problems)
        return made

    def _base(self, registry: Registry) -> ArchitectureSpec:
        try:
            return load_spec(self.base, registry=registry, folder=self._folder)
        except SpecError as error:
            raise SpecError(*(Problem(("base",), str(problem)) for problem in error.problems)) from None


def read_experiment(
    path_or_map: str | Path | Mapping[str, Any],
    registry: Registry | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    parts: Sequence[str | PathLike[str]] = (),
) -> Experiment:
    """The experiment that a YAML file or a map describes, all its variants read, matched, and built without data.

    `overrides` change its fields, dotted keys too, those of `base` and of variants as under `extends`. Raises SpecError with the path
    to all that is wrong. Parts are found in `registry`, or else among what is installed and in the Python files `parts`.
    """
    registry = registry_with([Path(part) for part in parts]) if registry is None and parts else registry
    source, folder, name = None, Path.cwd(), "experiment"
    if isinstance(path_or_map, Mapping):
        data: Any = dict(path_or_map)
    else:
        path = Path(path_or_map)
        if not path.exists():
            raise SpecError("there is no such file; an experiment is a YAML file", source=str(path))
        data, source, folder, name = read_yaml_file(path), str(path), path.parent, path.stem
    if not isinstance(data, dict):
        raise SpecError(f"an experiment is a map of fields, found {shown(data)}", source=source)
    base = data.get("base")
    if isinstance(base, ArchitectureSpec):
        data, registry = {**data, "base": base.canonical()}, registry or base.registry
    try:
        data = {"name": name, **(changed(data, overrides, "base", "variants") if overrides else data)}
        experiment = Experiment.model_validate(data)
        experiment._registry, experiment._folder = registry, folder.resolve()
        experiment._candidates = experiment._made(registry or default_registry())
    except ValidationError as error:
        raise SpecError(*explain(error, Experiment).problems, source=source) from None
    except SpecError as error:
        raise SpecError(*error.problems, source=source) from None
    return experiment


def check_vocabulary(experiment: Experiment, data: Mapping[str | None, DataSet]) -> None:
    """Raise SpecError if a variant has fewer token ids than the data, or one of the probes by name, has; None names the data."""
    problems = []
    for name, found in data.items():
        path = ("data",) if name is None else ("probes", name)
        small = [each for each in experiment.candidates if each.spec.vocab_size < found.vocab_size]
        told = ", ".join(f"{each.name!r} has {each.spec.vocab_size}" for each in small)
        if small:
            problems.append(Problem(path, f"has {found.vocab_size} token ids, more than fit into vocab_size: {told}"))
    if problems:
        raise SpecError(*problems)
