"""Who does the runs of an experiment: this process, several of them, or a Ray cluster.

A launcher is given jobs that do not depend on each other, and yields the number and the figures of each as it is through. All of
them call the same function with threads pinned by the recipe, so that their figures are equal.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from llamazoo.ablation.plan import Job
from llamazoo.ablation.work import Done, perform
from llamazoo.data.example import DataSet
from llamazoo.errors import TrainingError, UnknownComponentError, UnsupportedError
from llamazoo.extras import optional
from llamazoo.parts import registry_with
from llamazoo.registry import Registry
from llamazoo.shelf import nearest
from llamazoo.spec.compose import load_spec

__all__ = ["LAUNCHERS", "Launch", "launcher_of"]


class Launch(NamedTuple):
    """What a launcher needs to know besides the jobs."""

    folder: Path
    """Where each run has a folder of its own."""
    data: Mapping[str | None, DataSet]
    """What is trained on, and the probes by name; None names the data."""
    workers: int | None
    """How many runs at once; unless given, as many as there are processors for their threads."""
    registry: Registry | None
    """Where the parts are found, if not among what is installed: only this process has it."""
    parts: tuple[Path, ...] = ()
    """Python files of components, which every process reads."""


Launcher = Callable[[Sequence[Job], Launch], Iterator[tuple[int, Done]]]


def launcher_of(name: str) -> Launcher:
    """The launcher of that name. Raises UnsupportedError."""
    if name not in LAUNCHERS:
        raise UnsupportedError(f"there is no launcher {name!r}; {nearest(name, LAUNCHERS)}known: {', '.join(LAUNCHERS)}")
    return LAUNCHERS[name]


def sequential(jobs: Sequence[Job], launch: Launch) -> Iterator[tuple[int, Done]]:
    """One run after the other, here."""
    for number, job in enumerate(jobs):
        yield number, perform(job, launch.folder, launch.data[job.probe], registry=launch.registry)


def processes(jobs: Sequence[Job], launch: Launch) -> Iterator[tuple[int, Done]]:
    """Several processes of this machine, each of which does one run after the other."""
    _only_installed(jobs, launch)
    if not jobs:
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, and not by each of them
    workers = launch.workers or max(1, _processors() // max(job.recipe.threads for job in jobs))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow) as pool:
        waiting: dict[Future[Done], int] = {}
        for number, job in enumerate(jobs):
            waiting[pool.submit(_apart, job, launch._replace(registry=None))] = number
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    number = waiting.pop(future)
                    yield number, future.result()
        except BrokenProcessPool:
            raise TrainingError(
                "the process of a run died, killed perhaps for want of memory; what is finished is kept, so run the experiment again"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def ray(jobs: Sequence[Job], launch: Launch) -> Iterator[tuple[int, Done]]:
    """A Ray cluster: the one at RAY_ADDRESS, or one on this machine. Moritz et al. 2018."""
    _only_installed(jobs, launch)
    if not jobs:
        return
    engine = optional("ray", "ray")
    mine = not engine.is_initialized()
    if mine:
        engine.init(logging_level="warning", log_to_driver=False, include_dashboard=False, num_cpus=launch.workers)
    try:
        remote = engine.remote(max_retries=0)(_apart)
        waiting = {}
        for number, job in enumerate(jobs):
            waiting[remote.options(num_cpus=job.recipe.threads).remote(job, launch._replace(registry=None))] = number
        while waiting:
            for reference in engine.wait(list(waiting), num_returns=1)[0]:
                number = waiting.pop(reference)
                yield number, engine.get(reference)
    finally:
        if mine:
            engine.shutdown()


LAUNCHERS: Mapping[str, Launcher] = {"sequential": sequential, "processes": processes, "ray": ray}


def _apart(job: Job, launch: Launch) -> Done:
    """A run in another process."""
    return perform(job, launch.folder, launch.data[job.probe], registry=registry_with(launch.parts))


def _follow() -> None:
    """End this process when the one that started it is gone, however that died: a run that is under way leaves a checkpoint."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        parent.join()
        while True:  # the first asks a run to end; when it has, the next ends the process
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    threading.Thread(target=leave, daemon=True).start()


def _only_installed(jobs: Sequence[Job], launch: Launch) -> None:
    """Raise UnsupportedError if a part exists in this process only."""
    there = registry_with(launch.parts)
    for spec in {job.variant: job.spec for job in jobs}.values():
        try:
            load_spec(spec, registry=there)
        except UnknownComponentError as error:
            raise UnsupportedError(
                f"another process finds only parts that are installed, or stand in a file that is given with --parts: {error}"
            ) from None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
