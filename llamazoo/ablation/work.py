"""One run of an experiment, from its job to its figures; it leaves them in a folder, and a run that is there is not repeated."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from llamazoo.ablation.environment import machine
from llamazoo.ablation.fresh import as_usual, fresh_model
from llamazoo.ablation.measure import Memory, decode_tokens_per_second, losses_at
from llamazoo.ablation.outcomes import at_length, on_probe
from llamazoo.ablation.plan import Job
from llamazoo.ablation.results import CurvePoint, Outcome, Run
from llamazoo.data.config import PROBES, SOURCES
from llamazoo.data.example import DataSet
from llamazoo.errors import DivergedError, SaveError, TrainingError
from llamazoo.registry import Registry
from llamazoo.training.claim import claimed
from llamazoo.training.loop import train
from llamazoo.training.pinned import pinned
from llamazoo.training.sealed import sealed, unsealed
from llamazoo.training.stopping import staying
from llamazoo.training.watch import Watcher

__all__ = ["Done", "RunTiming", "called", "done", "perform", "run_of"]

RESULT = "result.json"


class RunTiming(BaseModel):
    """What a run took, which no two runs have in common."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    train_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    peak_memory_bytes: int | None
    seconds: float


class Done(BaseModel):
    """result.json of a run: its figures, and what they took."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    key: str
    tokens: int
    outcomes: dict[Outcome, float | None]
    curve: list[CurvePoint]
    training: list[CurvePoint]
    skipped: int
    diverged: str | None
    machine: dict[str, str]
    """What it was done with and on."""
    timing: RunTiming


def done(job: Job, folder: Path) -> Done | None:
    """The figures of a run that is through, or None. Raises TrainingError if they cannot be read, or are not those of this run."""
    file = folder / job.key / RESULT
    if not file.exists():
        return None
    again = "remove it, and the run is done again"
    try:
        found = unsealed(file.read_bytes(), Done)
    except OSError as error:
        raise TrainingError(f"{file}: cannot be read ({error.strerror or error}); {again}") from None
    except ValueError as error:
        raise TrainingError(f"{file}: is damaged ({error}); {again}") from None
    if found.key != job.key:
        raise TrainingError(f"{file}: belongs to the run {found.key}; remove it, and this run is done again")
    wrong = _unlike(found, job)
    if wrong is not None:
        raise TrainingError(f"{file}: is not what this run measures ({wrong}); {again}")
    return found


def _unlike(found: Done, job: Job) -> str | None:
    """In what a result is not one of this job, or None."""
    wanted = _measured(job, diverged=found.diverged is not None)
    if found.outcomes.keys() != wanted:
        return f"it has the outcomes {', '.join(found.outcomes) or 'none'}, due are {', '.join(sorted(wanted))}"
    if found.diverged is not None and any(value is not None for value in found.outcomes.values()):
        return "it diverged, and has figures all the same"
    if found.diverged is None and (found.outcomes["loss"] is None or not found.curve):
        return "it did not diverge, and has no loss"
    return None


def _measured(job: Job, *, diverged: bool) -> set[Outcome]:
    """The outcomes that a run of a job has."""
    right = SOURCES[job.data["source"]] in PROBES
    longer = () if diverged else (at_length(length) for length in (*job.lengths, *job.left_out))
    return {"loss", *(("accuracy",) if right else ()), *longer}


def perform(job: Job, folder: Path, data: DataSet, *, registry: Registry | None = None, watchers: Sequence[Watcher] = ()) -> Done:
    """Train, measure, and leave the figures under the job's key in `folder`; a run that was interrupted goes on where it was.

    An error, be it of a stranger's part, carries a note that says in which run it came; to end the program is an error of a part.
    """
    try:
        with as_usual(), staying():
            return _kept(job, folder, data, registry, watchers)
    except Exception as error:
        error.add_note(f"in {called(job)}")
        raise


def called(job: Job) -> str:
    """A run in words: its variant, role, seed and learning rate."""
    role = job.role if job.probe is None else f"{job.role} on {job.probe}"
    return f"the run of {job.variant!r}: {role}, seed {job.seed}, learning rate {job.recipe.lr:g}"


def _kept(job: Job, folder: Path, data: DataSet, registry: Registry | None, watchers: Sequence[Watcher]) -> Done:
    place = folder / job.key
    with claimed(place, wait=True):  # another program may be at it, and will be through, or die
        found = done(job, folder)
        if found is not None:
            return found
        found = _performed(job, place, data, registry, watchers)
        draft = place / f".{RESULT}"
        try:
            draft.write_text(sealed(found), encoding="utf-8")
            draft.replace(place / RESULT)
        except OSError as error:
            raise SaveError(f"{place / RESULT}: {error.strerror or error}; nothing was saved") from None
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        return found


def _performed(job: Job, place: Path, data: DataSet, registry: Registry | None, watchers: Sequence[Watcher]) -> Done:
    with pinned(job.recipe, torch.device(job.device), job.data_seed):  # for parts that draw first values from elsewhere than they should
        model = fresh_model(job, registry)
    memory = Memory(model.device)
    diverged = None
    try:
        trained = train(model, data, job.recipe, place, seed=job.data_seed, watchers=watchers)
    except DivergedError as error:
        trained, diverged = error.trained, str(error)
    peak, points = memory.peak(), trained.points
    outcomes: dict[Outcome, float | None] = {"loss": None, **({"accuracy": None} if data.accuracy else {})}
    speed = None
    if diverged is None:
        outcomes = {"loss": points[-1].loss, **({"accuracy": points[-1].accuracy} if data.accuracy else {})}
        with pinned(job.recipe, model.device, job.data_seed):
            outcomes |= losses_at(model, data, job.recipe, job.lengths) | {at_length(length): None for length in job.left_out}
            speed = decode_tokens_per_second(model, job.recipe.seq_len)
    return Done(
        key=job.key,
        tokens=trained.tokens,
        outcomes=outcomes,
        curve=[CurvePoint(tokens=p.tokens, loss=p.loss, accuracy=p.accuracy if data.accuracy else None) for p in points],
        training=[CurvePoint(tokens=p.tokens, loss=p.training_loss) for p in points if p.training_loss is not None],
        skipped=trained.skipped,
        diverged=diverged,
        machine=machine(model.device),
        timing=RunTiming(
            train_tokens_per_second=trained.tokens_per_second if trained.tokens else None,
            decode_tokens_per_second=speed,
            peak_memory_bytes=peak,
            seconds=trained.seconds,
        ),
    )


def run_of(job: Job, found: Done) -> Run:
    """The figures under the names that the experiment has for them."""
    outcomes = found.outcomes
    if job.probe is not None:
        outcomes = {on_probe(job.probe): outcomes.get("accuracy")}
    return Run(
        variant=job.variant,
        role=job.role,
        probe=job.probe,
        seed=job.seed,
        lr=job.recipe.lr,
        tokens=found.tokens,
        outcomes=outcomes,
        curve=found.curve,
        training=found.training,
        skipped=found.skipped,
        diverged=found.diverged,
    )
