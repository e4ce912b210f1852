"""Checkpoints: another run's, a damaged or a stranger's one is refused by name, and one process trains in a folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import SPEC, CountingData, assert_equal, model, recipe, weights
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor

import llamazoo
from llamazoo.errors import TrainingError
from llamazoo.parts import registry_with
from llamazoo.training.checkpoint import newest
from llamazoo.training.loop import train
from llamazoo.training.optimizer import Update
from llamazoo.training.sealed import sealed
from llamazoo.training.watch import Watcher

LAST = "step-000000020"


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(model(), CountingData(), recipe(), folder)
    return folder


@pytest.fixture
def run(_trained: Path, tmp_path: Path) -> Path:
    """The folder of a run that is through, to be spoilt."""
    (tmp_path / "checkpoints").mkdir()
    for file in sorted((_trained / "checkpoints").rglob("*.*")):
        target = tmp_path / file.relative_to(_trained)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    return tmp_path


def resume(folder: Path, **changes: Any) -> llamazoo.Trained:
    return train(model(), CountingData(), recipe(**changes), folder)


def test_a_checkpoint_of_another_run_is_refused_and_stays(run: Path) -> None:
    with pytest.raises(TrainingError, match=rf"{LAST}: belongs to a run of another model, other data or another recipe; .*remove {run}"):
        resume(run, lr=0.02)
    assert newest(run / "checkpoints") == run / "checkpoints" / LAST


def test_a_run_that_began_from_other_values_is_another_run(run: Path) -> None:
    other = model()
    with torch.no_grad():
        other.final_norm.weight[3] += 1e-6
    with pytest.raises(TrainingError, match=r"a run of other values to begin from; bring the model as it was when that run began"):
        train(other, CountingData(), recipe(), run)


PART = """
import torch
import llamazoo


class Bent(llamazoo.Activation):
    name = "bent"

    def forward(self, x):
        return torch.relu(x) * {slope}
"""


def test_a_run_with_a_part_that_was_edited_since_is_another_run(tmp_path: Path) -> None:
    def bent(slope: float) -> llamazoo.Decoder:
        (tmp_path / "bent.py").write_text(PART.format(slope=slope))
        registry = registry_with([tmp_path / "bent.py"])
        return llamazoo.build_model(SPEC, overrides={"feed_forward.activation": "bent"}, device="cpu", registry=registry)

    train(bent(1.0), CountingData(), recipe(tokens=64), tmp_path / "run")
    train(bent(1.0), CountingData(), recipe(tokens=64), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"a run of other code of bent.py; choose another folder"):
        train(bent(2.0), CountingData(), recipe(tokens=64), tmp_path / "run")


@pytest.mark.parametrize(("name", "spoil", "message"), [
    ("tensors.safetensors", lambda old: old[:100], "its SHA-256 is another"),
    ("tensors.safetensors", lambda old: old[:-1] + bytes([old[-1] ^ 1]), "its SHA-256 is another"),
    ("tensors.safetensors", None, "is damaged"),
    ("progress.json", lambda old: old[:30], "is damaged"),
    ("progress.json", lambda old: b"\xff" + old, "is damaged"),
], ids=["cut", "one bit", "absent", "cut progress", "no text"])  # fmt: skip
def test_a_damaged_checkpoint_is_refused_by_name(name: str, spoil: Callable[[bytes], bytes] | None, message: str, run: Path) -> None:
    file = run / "checkpoints" / LAST / name
    content = file.read_bytes()
    file.unlink()
    if spoil is not None:
        file.write_bytes(spoil(content))
    with pytest.raises(TrainingError, match=rf"{LAST}: .*{message}.*remove it"):
        resume(run)


class Anything(BaseModel):
    """What may be written by who does not ask what may be."""

    model_config = ConfigDict(extra="allow", ser_json_inf_nan="constants")


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda text: text.replace('"step": 20', '"step": 19', 1), "it was edited, or damaged: its SHA-256 is another"),
    (lambda text: text.replace('"step": 20', '"step": 3,\n "step": 20', 1), "it was edited, or damaged: its SHA-256 is another"),
    (lambda text: text[: text.index(',\n "sha256"')] + "\n}", "it was cut short, or edited: it has no SHA-256 at its end"),
], ids=["another number", "a key twice", "no sum"])  # fmt: skip
def test_progress_that_was_edited_is_refused(spoil: Callable[[str], str], message: str, run: Path) -> None:
    file = run / "checkpoints" / LAST / "progress.json"
    file.write_text(spoil(file.read_text()))
    with pytest.raises(TrainingError, match=rf"{LAST}: is damaged \(progress.json: {message}\); remove it to resume from the one before"):
        resume(run)


def forge(place: Path, tensors: Callable[[dict[str, Tensor]], Any], **progress: Any) -> None:
    """A checkpoint as a stranger might write it: what is wrong in it has the right hash."""
    held = load_file(place / "tensors.safetensors")
    tensors(held)
    save_file(held, place / "tensors.safetensors")
    told = json.loads((place / "progress.json").read_text())
    told |= {"digest": sha256((place / "tensors.safetensors").read_bytes()).hexdigest(), **progress}
    del told["sha256"]
    (place / "progress.json").write_text(sealed(Anything(**told)))


NORM = "model:final_norm.weight"


@pytest.mark.parametrize(("change", "message"), [
    (lambda held: held.update({NORM: torch.zeros(1)}), r"'model:final_norm.weight' is torch.float32 \[1\] in place of .* \[16\]"),
    (lambda held: held.update({NORM: held[NORM].double()}), r"is torch.float64 \[16\] in place of torch.float32"),
    (lambda held: held.pop(NORM), "'model:final_norm.weight' is missing"),
    (lambda held: held.update({"model:more": torch.zeros(1)}), "'model:more' is unknown"),
    (lambda held: held.pop("optimizer:exp_avg:final_norm.weight"), "'optimizer:exp_avg:final_norm.weight' is missing"),
    (lambda held: held.update({"optimizer:step:final_norm.weight": torch.zeros(2)}), r"\[2\] in place of torch.float32 \[\]"),
    (lambda held: held.update({"optimizer:exp_avg:none": torch.zeros(1)}), "'optimizer:exp_avg:none' is unknown"),
    (lambda held: held.pop("random:cpu"), "'random:cpu' is missing"),
    (lambda held: held["random:cpu"].fill_(255), "its random state is none"),
    (lambda held: held["random:python"].fill_(-1), "its random state is none"),
    (lambda held: held["random:numpy"].fill_(-1), "its random state is none"),
])  # fmt: skip
def test_tensors_that_are_not_the_runs_are_refused(change: Callable[[dict[str, Tensor]], Any], message: str, run: Path) -> None:
    forge(run / "checkpoints" / LAST, change)
    learner, before = model(), weights(model())
    with pytest.raises(TrainingError, match=rf"{LAST}: .*{message}"):
        train(learner, CountingData(), recipe(), run)
    assert_equal(weights(learner), before)


POINT = {"step": 2, "tokens": 64, "loss": 1.0, "accuracy": 0.5, "training_loss": None}


@pytest.mark.parametrize(("progress", "message"), [
    ({"step": 2, "taken": 2, "points": []}, "progress.json says step 2, of a run of 20"),
    ({"step": -3}, "step: .* greater than or equal to 0, found -3"),
    ({"step": "20"}, "step: .*valid integer, found '20'"),
    ({"points": [7]}, "points.0: "),
    ({"points": [{"step": 2}]}, "points.0.tokens: is required"),
    ({"points": [{**POINT, "extra": 1}]}, "points.0.extra"),
    ({"points": [{**POINT, "step": 21}]}, r"the evaluations are of the steps \[21\]; they have to rise, up to 20"),
    ({"points": [POINT, POINT]}, r"the evaluations are of the steps \[2, 2\]"),
    ({"skipped_in_a_row": 4}, "20 steps taken, .* 0 skipped, 4 in a row, of 20"),
    ({"skipped": 1}, "20 steps taken, .* 1 skipped, 0 in a row, of 20"),
    ({"summed": float("nan")}, "summed: .*finite"),
    ({"identity": "mine"}, "identity: "),
])  # fmt: skip
def test_progress_that_cannot_be_is_refused(progress: dict[str, Any], message: str, run: Path) -> None:
    forge(run / "checkpoints" / LAST, lambda held: None, **progress)
    with pytest.raises(TrainingError, match=rf"{LAST}: is damaged \(.*{message}"):
        resume(run)


def test_a_step_beyond_the_runs_last_is_refused(run: Path) -> None:
    place = run / "checkpoints" / LAST
    forge(place, lambda held: None, step=99)
    place.rename(place.with_name("step-000000099"))
    with pytest.raises(TrainingError, match=r"progress.json says step 99, of a run of 20"):
        resume(run)


HOLDER = """
import sys, time
from pathlib import Path
from llamazoo.training.claim import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_trains_in_a_folder_and_one_that_dies_leaves_it_free(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another process is training here; wait until it is through, end it, or choose another"):
            resume(tmp_path)
        assert not (tmp_path / "checkpoints").exists()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert resume(tmp_path).tokens == 640


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(TrainingError, match=r"file.*: cannot be written to \(.*\); choose another folder"):
            resume(folder)


class Kill(Watcher):
    """Ctrl-C behind the update of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def updated(self, step: int, update: Update, seconds: float) -> None:
        if step == self.step:
            raise KeyboardInterrupt


def test_a_part_that_is_not_used_is_resumed_too(tmp_path: Path) -> None:
    """AdamW remembers nothing of a parameter that had no gradient yet."""

    def spare() -> llamazoo.Decoder:
        made = model()
        made.register_parameter("spare", torch.nn.Parameter(torch.ones(3, 3)))
        return made

    with pytest.raises(KeyboardInterrupt):
        train(spare(), CountingData(), recipe(), tmp_path / "run", watchers=[Kill(10)])
    straight, resumed = spare(), spare()
    train(straight, CountingData(), recipe())
    train(resumed, CountingData(), recipe(), tmp_path / "run")
    assert_equal(weights(resumed), weights(straight))
