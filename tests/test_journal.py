"""metrics.jsonl and TensorBoard: what they tell of a run, however often it was interrupted."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import Counting, CountingData, journal, model, recipe
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llamazoo.data.example import IGNORED, Example
from llamazoo.errors import TrainingError
from llamazoo.training.loop import train
from llamazoo.training.optimizer import Update
from llamazoo.training.tensorboard import TensorBoard
from llamazoo.training.watch import Watcher

GIVEN = {"evaluate_every": 192, "checkpoint_every": 192}  # every sixth step


class Interrupt(Watcher):
    def __init__(self, step: int) -> None:
        self.step = step

    def updated(self, step: int, update: Update, seconds: float) -> None:
        if step + 1 == self.step:
            raise KeyboardInterrupt


class Asking(CountingData):
    """Asks the program to end in the midst of an evaluation."""

    def validation(self, seq_len: int) -> Counting:
        class Examples(Counting):
            def __getitem__(self, index: int) -> Example:
                if index == 5:
                    os.kill(os.getpid(), signal.SIGTERM)
                return super().__getitem__(index)

        return Examples(seq_len, 5, 10)


def evaluations(folder: Path) -> list[int]:
    return [line["step"] for line in journal(folder) if "evaluation" in line]


def test_an_evaluation_that_no_checkpoint_has_is_told_once(tmp_path: Path) -> None:
    """The checkpoint of step 6 is from the midst of its evaluation, and the run that evaluates there is killed before the next."""
    train(model(), CountingData(), recipe(**GIVEN), tmp_path / "straight")
    with pytest.raises(SystemExit, match="143"):
        train(model(), Asking(), recipe(**GIVEN), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(model(), CountingData(), recipe(**GIVEN), tmp_path / "run", watchers=[Interrupt(8)])
    train(model(), CountingData(), recipe(**GIVEN), tmp_path / "run")
    assert evaluations(tmp_path / "run") == [6, 12, 18, 20]
    assert journal(tmp_path / "run") == journal(tmp_path / "straight")


def test_a_run_that_is_through_is_told_as_often_as_one_likes(tmp_path: Path) -> None:
    only_last = recipe(evaluate_every=640, checkpoint_every=640)
    with pytest.raises(SystemExit, match="143"):
        train(model(), Asking(), only_last, tmp_path)
    for _ in range(3):
        train(model(), CountingData(), only_last, tmp_path)
        assert evaluations(tmp_path) == [20]


@pytest.mark.parametrize(("line", "message"), [
    ('{"a": 1}', "line 2 is none of ours .step: is required"),
    ('{"step": "x"}', "line 2 is none of ours .step: "),
    ("[1]", "line 2 is none of ours"),
    ("nothing", "line 2 is none of ours"),
])  # fmt: skip
def test_a_line_that_is_none_is_refused_with_its_number(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 0}}\n{line}\n{{"step": 1}}\n')
    with pytest.raises(TrainingError, match=rf"metrics.jsonl: {message}.*remove the line, or the file"):
        train(model(), CountingData(), recipe(), tmp_path)


def test_a_last_line_that_was_cut_off_is_forgotten(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(model(), CountingData(), recipe(**GIVEN), tmp_path / "run", watchers=[Interrupt(8)])
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "lo')
    train(model(), CountingData(), recipe(**GIVEN), tmp_path / "run")
    train(model(), CountingData(), recipe(**GIVEN), tmp_path / "straight")
    assert journal(tmp_path / "run") == journal(tmp_path / "straight")


def shown(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_tensorboard_shows_what_the_journal_tells(tmp_path: Path) -> None:
    for watchers in ([Interrupt(8)], [Interrupt(15)], []):
        board = TensorBoard(tmp_path / "tensorboard")
        try:
            train(model(), CountingData(), recipe(**GIVEN), tmp_path, watchers=[board, *watchers])
        except KeyboardInterrupt:
            continue
    told = journal(tmp_path)
    found = [(line["step"], line["evaluation"]["loss"]) for line in told if "evaluation" in line]
    assert [step for step, _ in found] == [6, 12, 18, 20]
    assert shown(tmp_path / "tensorboard", "validation/loss") == [(step, pytest.approx(loss)) for step, loss in found]
    updates = [(line["step"], pytest.approx(line["loss"])) for line in told if "loss" in line]
    assert shown(tmp_path / "tensorboard", "training/loss") == updates


class Silent(CountingData):
    """Every other batch of four has no target, or none has."""

    def __init__(self, *, always: bool = False) -> None:
        self.always = always

    def training(self, seq_len: int, seed: int) -> Counting:
        always = self.always

        class Examples(Counting):
            def __getitem__(self, index: int) -> Example:
                found = super().__getitem__(index)
                silent = always or index // 4 % 2 == 0
                return found._replace(targets=torch.full_like(found.targets, IGNORED)) if silent else found

        return Examples(seq_len, seed, 1 << 40)


@pytest.mark.parametrize("always", [False, True], ids=["half", "all"])
def test_a_batch_without_a_target_counts_as_nothing(always: bool, tmp_path: Path) -> None:
    trained = train(model(), Silent(always=always), recipe(**GIVEN), tmp_path)
    updates = [line for line in journal(tmp_path) if "loss" in line]
    silent: list[dict[str, Any]] = [line for line in updates if always or line["step"] % 2 == 0]
    assert [(line["loss"], line["targets"], line["taken"]) for line in silent] == [(None, 0, False)] * len(silent)
    assert trained.skipped == 0
    losses = [line["loss"] for line in updates[:6] if line["targets"]]
    expected = None if always else pytest.approx(sum(losses) / 3)
    assert trained.points[0].training_loss == expected
    assert len(losses) == (0 if always else 3)
    assert json.loads((tmp_path / "checkpoints" / "step-000000020" / "progress.json").read_text())["step"] == 20
