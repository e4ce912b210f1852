"""What a run follows from beside its weights: random numbers of all sorts, and what parts keep or set outside their parameters."""

import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting import SPEC, CountingData, assert_equal, model, recipe, weights
from torch import Tensor

import llamazoo
from llamazoo.errors import DivergedError, TrainingError
from llamazoo.training.checkpoint import newest
from llamazoo.training.loop import train
from llamazoo.training.optimizer import Update
from llamazoo.training.pinned import pinned
from llamazoo.training.watch import Watcher


class Bent(llamazoo.Activation):
    """The relu of x, times what a subclass says."""

    name = "bent"

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) * self.factor(x)

    def factor(self, x: Tensor) -> Any:
        return 1.0


def of(part: type[Bent]) -> llamazoo.Decoder:
    registry = llamazoo.default_registry().extended(part)
    return llamazoo.build_model(SPEC, overrides={"feed_forward.activation": part.name}, device="cpu", registry=registry)


class Drawing(Bent):
    """Draws from Python, and from numpy, as noise in training is drawn."""

    name = "drawing"

    def factor(self, x: Tensor) -> float:
        return 1 + 0.1 * (random.gauss(0, 1) + np.random.rand() + np.random.randn()) if self.training else 1.0


class Interrupt(Watcher):
    def updated(self, step: int, update: Update, seconds: float) -> None:
        if step == 11:
            raise KeyboardInterrupt


def test_random_numbers_of_python_and_numpy_are_the_same_in_each_run_and_after_an_interruption(tmp_path: Path) -> None:
    straight, again, resumed = of(Drawing), of(Drawing), of(Drawing)
    random.seed(1)
    train(straight, CountingData(), recipe(), seed=2**64 - 1)
    random.seed(2)
    np.random.seed(2)
    outside = random.getstate(), np.random.get_state()[1].tolist()
    train(again, CountingData(), recipe(), seed=2**64 - 1)
    assert_equal(weights(again), weights(straight))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == outside
    with pytest.raises(KeyboardInterrupt):
        train(of(Drawing), CountingData(), recipe(), tmp_path, seed=2**64 - 1, watchers=[Interrupt()])
    train(resumed, CountingData(), recipe(), tmp_path, seed=2**64 - 1)
    assert_equal(weights(resumed), weights(straight))


class Counts(Bent):
    """Counts its calls."""

    name = "counts"
    calls = 0

    def factor(self, x: Tensor) -> float:
        self.calls += 1
        return 1 + 0.01 * self.calls


class Averages(Bent):
    """A mean of all that it was trained on, which it uses outside training."""

    name = "averages"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.register_buffer("mean", torch.empty(()), persistent=False)

    def compute(self) -> None:
        self.mean = torch.zeros((), device=self.mean.device)

    def factor(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().abs().mean())
            return x.abs().mean()
        return self.mean


class DrawsOfItsOwn(Bent):
    """Has a source of random numbers of its own, which no checkpoint holds."""

    name = "draws_of_its_own"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.rng = np.random.default_rng(0)

    def factor(self, x: Tensor) -> float:
        return 1 + 0.1 * self.rng.random() if self.training else 1.0


class KeepsARecord(Bent):
    """What it saw last stands in a list, and makes it what it is."""

    name = "keeps_a_record"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.seen: list[dict[str, Tensor]] = []

    def factor(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = [*self.seen[-2:], {"mean": x.detach().mean()}]
        return 1 + sum(each["mean"] for each in self.seen)


@pytest.mark.parametrize(("part", "name"), [(Counts, "calls"), (Averages, "mean"), (DrawsOfItsOwn, "rng"), (KeepsARecord, "seen")])
def test_what_changes_the_loss_and_no_checkpoint_holds_is_refused_by_name(part: type[Bent], name: str, tmp_path: Path) -> None:
    told = rf"blocks\.0\.feed_forward\.activation\.{name} of {part.__name__}, .*no checkpoint holds it.*requires_grad=False"
    with pytest.raises(TrainingError, match=told):
        train(of(part), CountingData(), recipe(tokens=128), tmp_path)
    assert newest(tmp_path / "checkpoints") is None


def test_without_a_folder_there_is_nothing_to_be_resumed_and_a_part_may_count() -> None:
    assert train(of(Counts), CountingData(), recipe(tokens=128)).tokens == 128


class Harmless(Bent):
    """Keeps figures to be looked at, and a table for as long as it needs one."""

    name = "harmless"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.calls, self.last, self.longest, self.table = 0, None, 0, None

    def factor(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.longest:
            self.longest, self.table = x.shape[1], torch.ones(x.shape[1], 1)
        self.calls += 1
        self.last = x
        self.late = {"mean": [float(x.detach().mean())]}
        assert self.table is not None
        return self.table[: x.shape[1]]


class Remembers(Bent):
    """Counts its calls where a checkpoint holds that."""

    name = "remembers"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.calls = torch.nn.Parameter(torch.empty(()), requires_grad=False)

    def reset(self, draw: llamazoo.Draw) -> None:
        draw.zeros(self.calls)

    def factor(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.calls.add_(1)
        return 1 + 0.01 * self.calls.detach().clone()


@pytest.mark.parametrize("part", [Harmless, Remembers])
def test_what_changes_nothing_or_is_a_parameter_is_let_be_and_resumed(part: type[Bent], tmp_path: Path) -> None:
    straight, resumed = of(part), of(part)
    train(straight, CountingData(), recipe())
    with pytest.raises(KeyboardInterrupt):
        train(of(part), CountingData(), recipe(), tmp_path, watchers=[Interrupt()])
    train(resumed, CountingData(), recipe(), tmp_path)
    assert_equal(weights(resumed), weights(straight))


@pytest.fixture
def _settings() -> Iterator[None]:
    yield
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_settings")
def test_what_is_set_for_the_process_within_a_run_is_put_back() -> None:
    before = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with pinned(recipe(), torch.device("cpu"), 0):
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(3)
    assert (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before
    torch.set_grad_enabled(False)
    with pinned(recipe(), torch.device("cpu"), 0):
        assert torch.is_grad_enabled(), "what a program has set is no part of a recipe"
    assert not torch.is_grad_enabled()


class Leaves(Bent):
    name = "leaves"
    how: type[BaseException] = SystemExit
    training_only = True

    def factor(self, x: Tensor) -> float:
        if self.training is self.training_only:
            raise self.how(0)
        return 1.0


@pytest.mark.parametrize("in_training", [True, False])
def test_a_part_that_ends_the_program_does_not_but_ctrl_c_does(in_training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leaves, "training_only", in_training)
    with pytest.raises(TrainingError, match=r"a part tried to end the program \(SystemExit: 0\); raise an error"):
        train(of(Leaves), CountingData(), recipe(tokens=64))
    monkeypatch.setattr(Leaves, "how", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(of(Leaves), CountingData(), recipe(tokens=64))


class Sometimes(Watcher):
    """The model answers with what is no number at all steps but each fourth."""

    def __init__(self, learner: llamazoo.Decoder, good: int) -> None:
        plain, self.step = learner.logits, 0
        learner.logits = lambda x: (
            plain(x)
            * (  # type: ignore[method-assign]
                float("nan") if learner.training and self.step % 4 >= good else 1.0
            )
        )

    def updated(self, step: int, update: Update, seconds: float) -> None:
        self.step = step + 1


def test_a_run_that_skipped_more_steps_than_it_took_diverged(tmp_path: Path) -> None:
    given = recipe(non_finite="skip", tokens=256)
    for good, skipped in ((0, 8), (1, 6)):
        learner = model()
        watchers = [Sometimes(learner, good)]
        with pytest.raises(DivergedError, match=f"{skipped} of 8 steps, more than half, had a loss or gradients that are not finite"):
            train(learner, CountingData(), given, tmp_path / str(good), watchers=watchers)
        with pytest.raises(DivergedError, match=f"{skipped} of 8 steps"):  # told again by who asks again
            train(model(), CountingData(), given, tmp_path / str(good))
    learner = model()
    assert train(learner, CountingData(), given, watchers=[Sometimes(learner, 2)]).skipped == 4


FULL = """
import resource, sys
from counting import CountingData, model, recipe
from llamazoo.errors import SaveError
from llamazoo.training.loop import train
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    train(model(), CountingData(), recipe(tokens=64), sys.argv[1])
except SaveError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system has no limit of a file's size")
def test_a_disk_that_takes_no_more_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    for name, size, file in (("a", 20_000, "checkpoints/step-000000001: File too large; nothing was saved"), ("b", 50, "metrics.jsonl: ")):
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(tmp_path / name), str(size)], capture_output=True, text=True, cwd=Path(__file__).parent
        )
        assert done.returncode == 0, done.stderr
        assert f"{tmp_path / name}/{file}" in done.stdout
    assert not list((tmp_path / "a" / "checkpoints").iterdir())
