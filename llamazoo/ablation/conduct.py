"""An experiment from its file to its results: variants, runs, comparisons, report."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamazoo.ablation.effects import Cell, effects
from llamazoo.ablation.environment import environment as environment_of
from llamazoo.ablation.environment import parts_of, plugins_of
from llamazoo.ablation.experiment import Experiment, read_experiment
from llamazoo.ablation.facts import facts_of
from llamazoo.ablation.findings import Paired
from llamazoo.ablation.guessing import guessing
from llamazoo.ablation.launch import Launch
from llamazoo.ablation.looks import earlier_looks
from llamazoo.ablation.outcomes import probe_of
from llamazoo.ablation.paired import noise_floor
from llamazoo.ablation.plan import Choice, Job, choose
from llamazoo.ablation.prepare import Prepared, prepare
from llamazoo.ablation.report.answer import warnings
from llamazoo.ablation.report.write import write_report
from llamazoo.ablation.results import Comparison, Effect, Guessing, Noise, Outcome, Results, Run, Timings, Variant
from llamazoo.ablation.statistics import compare
from llamazoo.ablation.timing import timings_of
from llamazoo.ablation.variants import BASE, Candidate
from llamazoo.ablation.work import Done, RunTiming, run_of
from llamazoo.errors import SaveError
from llamazoo.parts import registry_with
from llamazoo.registry import Registry

__all__ = ["RUNS", "Heard", "run"]

RUNS, RESULTS, TIMINGS = "runs", "results.json", "timings.json"


@dataclass(frozen=True)
class Heard:
    """What a watcher is told: a run is through, one of so many of its stage."""

    job: Job
    finished: int
    of: int
    in_all: int
    """How many runs the experiment has, of all stages."""


@dataclass(frozen=True)
class Ran:
    """The runs that are through, in the order of the plan, and what they took."""

    runs: list[Run]
    timings: list[tuple[Job, RunTiming]]
    machines: list[dict[str, str]]


def run(
    experiment: str | os.PathLike[str] | Mapping[str, Any] | Experiment,
    folder: str | os.PathLike[str],
    *,
    launcher: str = "sequential",
    workers: int | None = None,
    registry: Registry | None = None,
    parts: Sequence[str | os.PathLike[str]] = (),
    device: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    watch: Callable[[Heard], None] | None = None,
) -> Results:
    """Train and compare what an experiment describes; write results.json, timings.json, report.html, report.md and figures/.

    Runs that are finished already in `folder` are not repeated, and one that was interrupted goes on where it was. `launcher` is
    sequential, processes (`workers` at once) or ray; other processes find parts only if they are installed, or stand in one of
    the files `parts`. Parts are found in `registry`, or in those files; an Experiment has the registry that it was read with.
    `device` is cpu unless given. Everything that is wrong is told before anything is trained: SpecError naming the variant,
    DataError, UnsupportedError, SaveError for the folder. An error within a run has a note that names the run.
    """
    files, place = tuple(Path(part) for part in parts), Path(folder)
    registry = registry_with(files) if registry is None and parts else registry
    read = experiment if isinstance(experiment, Experiment) else read_experiment(_path(experiment), registry)
    ready = prepare(read, launcher=launcher, workers=workers, parts=files, device=device, cache=cache)
    plan, data, runs = ready.plan, ready.data, _folder(place)
    asked = Launch(runs, data, workers, ready.registry, files)

    def through(jobs: Sequence[Job]) -> Ran:
        found: dict[int, Done] = {}
        with closing(ready.launcher(jobs, asked)) as running:  # so that an interrupt of the watcher ends the runs too
            for number, done in running:
                found[number] = done
                if watch is not None:
                    watch(Heard(jobs[number], len(found), len(jobs), len(ready.jobs)))
        ordered = [(job, found[number]) for number, job in enumerate(jobs)]
        return Ran(
            [run_of(job, done) for job, done in ordered],
            [(job, done.timing) for job, done in ordered],
            [done.machine for _, done in ordered],
        )

    tuned = through(plan.tuning_jobs())
    chosen = choose(read, tuned.runs)
    final = through(plan.final_jobs({name: choice.by_seed for name, choice in chosen.items()}))
    told = environment_of(plan.candidates, [*tuned.machines, *final.machines])
    results = _results(read, ready, chosen, final.runs, told, place / RESULTS)
    timings = timings_of([*tuned.timings, *final.timings], plan.candidates)
    _write(place, results, timings)
    write_report(results, timings, place)
    return results


def _results(
    experiment: Experiment,
    ready: Prepared,
    chosen: Mapping[str, Choice],
    runs: Sequence[Run],
    environment: dict[str, str],
    before: Path,
) -> Results:
    noise = _noise(experiment, runs)
    candidates, guesses = ready.plan.candidates, guessing(experiment, ready.data)
    compared = _comparisons(experiment, candidates, runs, noise, guesses)
    found = Results(
        name=experiment.name,
        experiment=experiment.model_dump(mode="json"),
        data=facts_of(experiment, ready.data),
        environment=environment,
        parts=parts_of(candidates),
        plugins=plugins_of(candidates),
        outcomes=list(experiment.outcomes),
        base=BASE,
        variants=[
            Variant(
                name=each.name,
                spec=each.spec.canonical(),
                differences=each.differences,
                matched=each.matched,
                costs=each.costs,
                learning_rates=chosen[each.name].curve,
                lr=chosen[each.name].lr,
                at_edge=chosen[each.name].at_edge,
                runs=[run for run in runs if run.variant == each.name and run.role in ("evaluation", "probe")],
                comparisons=compared.get(each.name, []),
                levels=each.levels,
            )
            for each in candidates
        ],
        noise=noise,
        effects=list(_effects(experiment, candidates, runs)),
        guessing=guesses,
    )
    found = found.model_copy(update={"earlier": earlier_looks(before, found)})
    return found.model_copy(update={"warnings": list(warnings(found))})


def _figures(runs: Sequence[Run], variant: str, outcome: Outcome, noise: bool = False) -> dict[int, Run]:
    """The runs of a variant that have an outcome, by seed."""
    probe = probe_of(outcome)
    role = "noise" if noise else "evaluation" if probe is None else "probe"
    return {run.seed: run for run in runs if (run.variant, run.role, run.probe) == (variant, role, probe)}


def _told(runs: Mapping[int, Run], outcome: Outcome) -> Iterator[float]:
    """An outcome of each of these runs that has it."""
    return (value for run in runs.values() if (value := run.outcomes.get(outcome)) is not None)


def _less(first: Run, second: Run, outcome: Outcome) -> float | None:
    one, other = first.outcomes.get(outcome), second.outcomes.get(outcome)
    return None if one is None or other is None else one - other


def _noise(experiment: Experiment, runs: Sequence[Run]) -> Noise | None:
    """What two runs of the base differ by, in each outcome that was compared."""
    if not experiment.noise:
        return None
    found: dict[Outcome, list[float]] = {}
    for outcome in experiment.outcomes:
        once, again = (_figures(runs, BASE, outcome, noise=noise) for noise in (False, True))
        pairs = [_less(again[seed], once[seed], outcome) for seed in experiment.seed_numbers]
        found[outcome] = [difference for difference in pairs if difference is not None]
    floors = {outcome: noise_floor(values, experiment.seeds, experiment.alpha) for outcome, values in found.items()}
    return Noise(
        runs=[run for run in runs if run.role == "noise"],
        differences=found,
        floor={outcome: floor for outcome, floor in floors.items() if floor is not None},
    )


def _comparisons(
    experiment: Experiment,
    candidates: Sequence[Candidate],
    runs: Sequence[Run],
    noise: Noise | None,
    guesses: Mapping[Outcome, Guessing],
) -> dict[str, list[Comparison]]:
    """All variants in all declared outcomes, one family."""
    pairs = [
        _paired(experiment, runs, each.name, outcome, noise, guesses.get(outcome))
        for each in candidates
        if each.name != BASE
        for outcome in experiment.outcomes
    ]
    smallest = {outcome: experiment.smallest_of(outcome) for outcome in experiment.outcomes}
    compared = compare(pairs, alpha=experiment.alpha, power=experiment.power, smallest=smallest)
    found: dict[str, list[Comparison]] = {}
    for pair, comparison in zip(pairs, compared, strict=True):
        found.setdefault(pair.variant, []).append(comparison)
    return found


def _paired(
    experiment: Experiment, runs: Sequence[Run], variant: str, outcome: Outcome, noise: Noise | None, guess: Guessing | None
) -> Paired:
    again = [] if noise is None else noise.differences[outcome]
    ours, base = (_figures(runs, name, outcome) for name in (variant, BASE))
    seeds = experiment.seed_numbers
    figures = list(_told(base, outcome))
    return Paired(
        variant=variant,
        outcome=outcome,
        better=experiment.better(outcome),
        differences=[_less(ours[seed], base[seed], outcome) for seed in seeds],
        noise=again,
        noise_lost=0 if noise is None else experiment.seeds - len(again),
        diverged=sum(ours[seed].diverged is not None and base[seed].diverged is None for seed in seeds),
        base_diverged=sum(base[seed].diverged is not None for seed in seeds),
        base_mean=sum(figures) / len(figures) if figures else None,
        guessed=guess.chance if guess and all(guess.reaches(list(_told(each, outcome))) for each in (ours, base)) else None,
        identical=_identical(runs, variant),
    )


def _identical(runs: Sequence[Run], variant: str) -> bool:
    """Whether all losses of a variant, on the data and on probes, are those of the base to the bit: the two compute the same then."""

    def losses(name: str) -> dict[tuple[int, str | None], object]:
        own = [run for run in runs if run.variant == name and run.role != "noise"]
        return {(run.seed, run.probe): (run.outcomes, run.curve, run.training) for run in own}

    return losses(variant) == losses(BASE)


def _effects(experiment: Experiment, candidates: Sequence[Candidate], runs: Sequence[Run]) -> Iterator[Effect]:
    if not experiment.factors:
        return
    for outcome in experiment.outcomes:
        rows = [
            Cell(each.levels, seed, run.outcomes.get(outcome))
            for each in candidates
            if each.levels
            for seed, run in sorted(_figures(runs, each.name, outcome).items())
        ]
        yield from effects(rows, outcome, alpha=experiment.alpha)


def _folder(place: Path) -> Path:
    """The folder of the runs, made. Raises SaveError if something else is there, or it cannot be."""
    try:
        (place / RUNS).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: there is a NUL in the name
        told = getattr(error, "strerror", None) or error
        raise SaveError(f"{str(place)!a}: no folder can be made there ({told}); choose another one") from None
    for name in (RESULTS, TIMINGS):
        if (place / name).is_dir():
            raise SaveError(f"{place / name}: is a folder, where a file of results is to be; remove it, or choose another folder")
    return place / RUNS


def _write(folder: Path, results: Results, timings: Timings) -> None:
    for name, told in ((RESULTS, results), (TIMINGS, timings)):
        draft = folder / f".{name}.{secrets.token_hex(8)}"  # of this program, where another ends in the same folder at once
        try:
            draft.write_text(told.model_dump_json(indent=1) + "\n", encoding="utf-8")
            draft.replace(folder / name)
        except OSError as error:
            raise SaveError(f"{folder / name}: {error.strerror or error}; the runs are kept, so run the experiment again") from None
        finally:
            draft.unlink(missing_ok=True)


def _path(experiment: str | os.PathLike[str] | Mapping[str, Any]) -> Path | Mapping[str, Any]:
    return experiment if isinstance(experiment, Mapping) else Path(experiment)
