"""Who does the runs of an experiment: this process, several of them, or a Ray cluster.

A launcher is given jobs that do not depend on each other, and yields the number and the figures of each as it is through. All of
them call the same function with threads pinned by the recipe, so that their figures are equal.
"""

import functools
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from llamazoo.ablation.plan import Job
from llamazoo.ablation.work import Done, called, perform
from llamazoo.build import build_model
from llamazoo.contract.blame import within_part
from llamazoo.data.example import DataSet
from llamazoo.errors import TrainingError, UnknownComponentError, UnsupportedError
from llamazoo.extras import optional
from llamazoo.parts import registry_with
from llamazoo.registry import Registry
from llamazoo.shelf import nearest
from llamazoo.spec.compose import load_spec
from llamazoo.training.code import code_of

__all__ = ["LAUNCHERS", "Launch", "at_once", "check_found_elsewhere", "launcher_of"]

GRACE = 30.0  # seconds that a run has to come to the end of a step and leave a checkpoint, once it is to end
DIED = "died"  # in a run's folder: a line for each time that its process died


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


Launcher = Callable[[Sequence[Job], Launch], Generator[tuple[int, Done], None, None]]


def launcher_of(name: str) -> Launcher:
    """The launcher of that name. Raises UnsupportedError, if what it needs is not installed too."""
    if name not in LAUNCHERS:
        raise UnsupportedError(f"there is no launcher {name!r}; {nearest(name, LAUNCHERS)}known: {', '.join(LAUNCHERS)}")
    if name == "ray":
        optional("ray", "ray")
    return LAUNCHERS[name]


def at_once(name: str, jobs: Sequence[Job], workers: int | None) -> int:
    """How many of these jobs a launcher of this machine does at once: as many as have processors for their threads, on a GPU one."""
    if name == "sequential" or not jobs:
        return 1
    fitting = _processors() // max(job.recipe.threads for job in jobs) if jobs[0].device == "cpu" else 1
    return min(len(jobs), workers or max(1, fitting))


def check_found_elsewhere(jobs: Sequence[Job], parts: tuple[Path, ...]) -> None:
    """Raise UnsupportedError if a part exists in this process only, or is another one in other processes."""
    there = registry_with(parts)
    for job in {job.variant: job for job in jobs}.values():
        try:
            spec = load_spec(job.spec, registry=there)
        except UnknownComponentError as error:
            raise UnsupportedError(
                f"another process finds only parts that are installed, or stand in a file that is given with --parts: {error}"
            ) from None
        changed = _changed(job, code_of(build_model(spec, device="meta", registry=there)))
        if changed:
            raise UnsupportedError(
                f"another process finds only parts that are installed, or stand in a file that is given with --parts; "
                f"for {job.variant!r} it finds others than this one has: {changed}"
            )


def sequential(jobs: Sequence[Job], launch: Launch) -> Generator[tuple[int, Done], None, None]:
    """One run after the other, here."""
    for number, job in enumerate(jobs):
        yield number, perform(job, launch.folder, launch.data[job.probe], registry=launch.registry)


def processes(jobs: Sequence[Job], launch: Launch) -> Generator[tuple[int, Done], None, None]:
    """Several processes of this machine, each of which does one run after the other."""
    if not jobs:
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, and not by each of them
    with _without_interrupts():  # it passes on that they are ignored to all that it starts
        forkserver.ensure_running()
    first = context.Process(target=os.getpid)  # when it is through, torch is imported; an interrupt until then leaves nobody half-made
    first.start()
    first.join()
    heard, said = context.Pipe(duplex=False)  # an Event could not be set where somebody died who waits for it
    with heard, said, ExitStack() as ended:
        # A pool for each process, so that it is known in which run one died.
        pools = [ProcessPoolExecutor(1, context, _follow, (heard, GRACE)) for _ in range(at_once("processes", jobs, launch.workers))]
        for pool in pools:
            ended.callback(pool.shutdown, wait=True, cancel_futures=True)
        try:
            yield from _spread(jobs, launch, pools)
        except BaseException:  # an interrupt, or an error: the runs that are under way leave a checkpoint, and nobody waits for them
            said.close()
            raise


def _spread(jobs: Sequence[Job], launch: Launch, pools: Sequence[ProcessPoolExecutor]) -> Generator[tuple[int, Done], None, None]:
    """The jobs one after the other to whoever is free."""
    coming, running = iter(enumerate(jobs)), dict[Future[Done], tuple[int, ProcessPoolExecutor]]()

    def begin(pool: ProcessPoolExecutor) -> None:
        for number, job in itertools.islice(coming, 1):
            running[pool.submit(_apart, job, launch._replace(registry=None))] = number, pool

    for pool in pools:
        begin(pool)
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            number, pool = running.pop(future)
            try:
                found = future.result()
            except BrokenProcessPool:
                raise _died(jobs[number], launch) from None
            begin(pool)
            yield number, found


def ray(jobs: Sequence[Job], launch: Launch) -> Generator[tuple[int, Done], None, None]:
    """A Ray cluster: the one at RAY_ADDRESS, or one on this machine. Moritz et al. 2018."""
    if not jobs:
        return
    engine = optional("ray", "ray")
    mine = not engine.is_initialized()
    if mine:
        threads, joined = max(job.recipe.threads for job in jobs), "RAY_ADDRESS" in os.environ  # whose size is not for us to say
        processors = None if joined or launch.workers is None else launch.workers * threads
        engine.init(logging_level="warning", log_to_driver=False, include_dashboard=False, num_cpus=processors)
    try:
        needs_gpu = any(job.device != "cpu" for job in jobs)
        if needs_gpu and not engine.cluster_resources().get("GPU"):
            raise UnsupportedError("there is no GPU in the Ray cluster; leave out --device, or give Ray a machine with one")
        remote = engine.remote(max_retries=0)(_apart)
        waiting = {}
        for number, job in enumerate(jobs):
            wanted = remote.options(num_cpus=job.recipe.threads, num_gpus=int(needs_gpu))
            waiting[wanted.remote(job, launch._replace(registry=None))] = number
        while waiting:
            for reference in engine.wait(list(waiting), num_returns=1)[0]:
                number = waiting.pop(reference)
                try:
                    found = engine.get(reference)
                except engine.exceptions.RayTaskError as error:
                    raise error.cause from error
                except engine.exceptions.RayError as error:  # its process, or its machine, is gone
                    raise _died(jobs[number], launch) from error
                yield number, found
    finally:
        if mine:
            engine.shutdown()


LAUNCHERS: Mapping[str, Launcher] = {"sequential": sequential, "processes": processes, "ray": ray}


def _apart(job: Job, launch: Launch) -> Done:
    """A run in another process."""
    try:
        registry = _registry(launch.parts)
        changed = _changed(job, code_of(build_model(job.spec, device="meta", registry=registry)))
        if changed:
            raise TrainingError(f"a run of {job.variant!r} cannot begin, since the code has changed: {changed}; run the experiment again")
        return perform(job, launch.folder, launch.data[job.probe], registry=registry)
    except Exception as error:
        error.__traceback__ = within_part(error.__traceback__) or error.__traceback__
        carried = _carried(error)
        if carried is error:
            raise
        raise carried from None


def _died(job: Job, launch: Launch) -> TrainingError:
    """What is told of a run whose process died; noted in its folder, in case it does so again."""
    note = launch.folder / job.key / DIED
    times = 1 + (len(note.read_text(encoding="utf-8").splitlines()) if note.is_file() else 0)
    note.parent.mkdir(parents=True, exist_ok=True)
    with open(note, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}\n")
    if times == 1:
        told = "killed perhaps for want of memory, or by a fault in compiled code; what is finished is kept, so run the experiment again"
    else:
        told = (
            f"for the {times}. time, so that it would do so again: see that it has enough memory (--workers 1, a smaller "
            "micro_batch_tokens), or find the fault with PYTHONFAULTHANDLER=1 and --launcher sequential, which shows where it is"
        )
    return TrainingError(f"the process of {called(job)} died, {told}")


def _said(error: object) -> tuple[object, ...]:
    return type(error), str(error), getattr(error, "__notes__", None)


@functools.cache
def _registry(parts: tuple[Path, ...]) -> Registry:
    """What stands in files of parts, executed once in each process, whatever becomes of them."""
    return registry_with(parts)


def _changed(job: Job, here: Mapping[str, str]) -> str:
    """What is not as it was when the job was made, in words, or nothing."""
    names = sorted(name for name in {*job.code, *here} if job.code.get(name) != here.get(name))
    return ", ".join(f"{name} ({job.code.get(name, 'none')} there, {here.get(name, 'none')} here)" for name in names)


def _carried(error: Exception) -> Exception:
    """An error as it can go to another process: itself, or what it says, where its class cannot be sent."""
    try:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - bytes of our own
    except Exception:
        again = None
    if _said(again) == _said(error):
        return error
    told = TrainingError(f"{type(error).__name__}: {error}")
    for note in (*getattr(error, "__notes__", ()), "".join(traceback.format_exception(error))):
        told.add_note(note)
    return told


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C is ignored while the block runs; only the main thread can see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _follow(heard: Connection, grace: float) -> None:
    """End this process when the one that started it says so, or is gone, however that died: a run that is under way leaves a checkpoint.

    One that does not come to the end of a step in so many seconds is killed, which harms nothing that is on the disk. An interrupt is
    for the one that started it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave(after: Callable[[], object]) -> None:
        after()
        until = time.monotonic() + grace
        while time.monotonic() < until:  # the first asks a run to end; when it has, the next ends the process
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(min(1.0, grace))
        os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    for after in (parent.join, functools.partial(heard.poll, None)):  # nothing is ever sent: it is closed
        threading.Thread(target=leave, args=(after,), daemon=True).start()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
