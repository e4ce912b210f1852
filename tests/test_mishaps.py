"""What goes wrong with an experiment is told early and by name: parts that fail, processes that die, files that were edited."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict
from small_experiment import BASE, EXPERIMENT, of_text
from typer.testing import CliRunner

from llamazoo.ablation import run
from llamazoo.ablation.conduct import RESULTS
from llamazoo.ablation.experiment import read_experiment
from llamazoo.ablation.prepare import prepare
from llamazoo.ablation.preview import preview
from llamazoo.ablation.results import Results
from llamazoo.cli.main import app
from llamazoo.errors import SaveError, SpecError, TrainingError
from llamazoo.parts import registry_with
from llamazoo.training.sealed import sealed

PROGRAM = Path(__file__).parent / "programs" / "ablate.py"
PLAIN = {**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}}
NORM = """
import ctypes
import random
import sys
import time

import numpy as np
import torch
import llamazoo


class Mine(llamazoo.Norm):
    name = "mine"

    def __init__(self, options, site):
        super().__init__(options, site)
        self.first, self.calls = random.random(), 0

    def forward(self, x):
        {}
        return x
"""


def norm(folder: Path, does: str) -> Path:
    """A file with a norm that does this to x and returns it."""
    file = folder / "my_norm.py"
    file.write_text(NORM.format(does))
    return file


def asked(folder: Path, does: str, experiment: dict[str, Any] = EXPERIMENT) -> Any:
    """What the command line says to an experiment with such a norm."""
    (folder / "e.yaml").write_text(json.dumps(experiment))
    return CliRunner().invoke(app, ["ablate", str(folder / "e.yaml"), "--parts", str(norm(folder, does)), "--out", str(folder / "out")])


# Before anything is trained


@pytest.mark.parametrize("field", ["probe_train", "train"])
def test_a_probe_that_does_not_fit_its_examples_is_told_before_anything_is_trained(field: str, tmp_path: Path) -> None:
    given = {**PLAIN, "probes": {"deep": {"source": "induction", "vocab_size": 24, "length": 16}}}
    if field == "probe_train":
        given |= {"probe_train": {"tokens": 256, "batch_tokens": 128, "seq_len": 16}}
    with pytest.raises(SpecError, match=rf"probes\.deep: induction: a task takes 48 tokens .*\({field}\.seq_len is 16\)"):
        run(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("assert self.training", "in the model of 'mine', before it is trained"),
        ("assert x.shape[1] > 1", "in decoding, one token after the other, in the model of 'mine', before it is trained"),
        ("assert x.shape[1] <= 32", "at 64 tokens, 4 times the trained length, in the model of 'mine', before it is trained"),
    ],
)
def test_a_part_that_fails_outside_training_fails_before_it(does: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        run({**of_text(tmp_path), "outcomes": ["loss", "loss@4x"]}, tmp_path / "out", parts=[norm(tmp_path, does)])
    assert caught.value.__notes__ == [told]
    assert not (tmp_path / "out").exists()


def test_a_length_that_nobody_asked_for_and_at_which_a_part_fails_is_left_out_and_told(tmp_path: Path) -> None:
    file, given = norm(tmp_path, "assert x.shape[1] <= 32, 'too long'"), of_text(tmp_path)
    results = run(given, tmp_path / "out", parts=[file])
    (found,) = results.variant("mine").runs
    assert found.outcomes["loss@4x"] is None
    assert found.outcomes["loss@2x"] is not None
    assert results.variant("base").runs[0].outcomes["loss@4x"] is not None
    assert run(given, tmp_path / "out", parts=[file]) == results
    read = read_experiment(given, registry_with([file]))
    assert (
        "mine fails at 4 times the trained length, where its loss will be missing: AssertionError: too long"
        in preview(prepare(read).plan).warnings
    )


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "lpt9.txt"])
def test_a_variant_has_no_name_that_is_a_device_of_windows(name: str) -> None:
    with pytest.raises(SpecError, match="cannot name a file on every machine: it is a device of Windows"):
        read_experiment({**PLAIN, "variants": {name: {"norm": "layernorm"}}})


@pytest.mark.parametrize(
    ("spoil", "out", "message"),
    [
        (lambda place: place.write_text(""), "out", "'.*out': no folder can be made there .*; choose another one"),
        (lambda place: None, "o" * 300, r"no folder can be made there \(File name too long\)"),
        (lambda place: None, "o\0t", r"no folder can be made there \(embedded null byte\)"),
        (lambda place: (place / RESULTS).mkdir(parents=True), "out", r"results\.json: is a folder, where a file of results is to be"),
    ],
    ids=["a file", "too long", "NUL", "results"],
)
def test_a_folder_that_cannot_be_is_told_before_anything_is_trained(
    spoil: Callable[[Path], Any], out: str, message: str, tmp_path: Path
) -> None:
    spoil(tmp_path / "out")
    with pytest.raises(SaveError, match=message):
        run(PLAIN, tmp_path / out)
    assert not list(tmp_path.glob("out/runs/*"))


# Results that are there


class Anything(BaseModel):
    """What may be written by who does not ask what may be."""

    model_config = ConfigDict(extra="allow")


BOTH = {"loss": 1.0, "accuracy": 0.5}


def resealed(text: str, **changes: Any) -> str:
    """A result with other fields, and the right sum."""
    told = json.loads(text) | changes
    del told["sha256"]
    return sealed(Anything(**told))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace('"skipped": 0', '"skipped": 1'), "is damaged (it was edited, or damaged: its SHA-256 is another)"),
        (lambda text: text.replace('"tokens": 512', '"tokens": 9,\n "tokens": 512', 1), "is damaged (it was edited, or damaged"),
        (lambda text: text[:100], "is damaged (it was cut short, or edited: it has no SHA-256 at its end)"),
        (lambda text: resealed(text, outcomes={}), "(it has the outcomes none, due are accuracy, loss)"),
        (lambda text: resealed(text, diverged="so", outcomes=BOTH), "(it diverged, and has figures all the same)"),
        (lambda text: resealed(text, skipped="1"), "is damaged (skipped: input should be a valid integer"),
    ],
    ids=["a number", "a key twice", "cut", "no outcomes", "diverged", "no number"],
)
def test_a_result_that_was_edited_is_told_by_its_file_and_not_taken(spoil: Callable[[str], str], message: str, tmp_path: Path) -> None:
    run(PLAIN, tmp_path)
    file = next((tmp_path / "runs").glob("*/result.json"))
    file.write_text(spoil(file.read_text()))
    with pytest.raises(TrainingError) as caught:
        run(PLAIN, tmp_path)
    assert str(caught.value).startswith(f"{file}: is ")
    assert message in str(caught.value)
    assert str(caught.value).endswith("; remove it, and the run is done again")


def test_a_result_that_is_a_folder_is_told(tmp_path: Path) -> None:
    run(PLAIN, tmp_path)
    file = next((tmp_path / "runs").glob("*/result.json"))
    file.unlink()
    file.mkdir()
    with pytest.raises(TrainingError, match=r"result\.json: cannot be read \(Is a directory\); remove it"):
        run(PLAIN, tmp_path)


# What a part does to the process


def test_random_numbers_of_python_and_numpy_are_those_of_the_run(tmp_path: Path) -> None:
    file = norm(tmp_path, "x = x * (self.first + random.random() + np.random.rand() if self.training else self.first)")
    for name in ("one", "other"):
        run(EXPERIMENT, tmp_path / name, parts=[file])
    assert (tmp_path / "one" / RESULTS).read_bytes() == (tmp_path / "other" / RESULTS).read_bytes()


def test_what_a_part_sets_for_the_process_the_next_run_does_not_find(tmp_path: Path) -> None:
    does = "self.training or (torch.set_grad_enabled(False), torch.use_deterministic_algorithms(True))"
    given = {**EXPERIMENT, "seeds": 2}
    ours = run(given, tmp_path / "out", parts=[norm(tmp_path, does)])
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    plain = run({**PLAIN, "seeds": 2}, tmp_path / "plain")
    assert [each.outcomes for each in ours.variant("base").runs] == [each.outcomes for each in plain.variant("base").runs]


def test_a_part_that_counts_its_steps_is_refused_with_its_run(tmp_path: Path) -> None:
    done = asked(tmp_path, "self.calls += self.training; x = x * (1 + 0.01 * self.calls)")
    assert done.exit_code == 2
    assert "blocks.0.attention_norm.calls of Mine" in done.stderr
    assert "in the run of 'mine': evaluation, seed 0, learning rate 0.003" in done.stderr


def test_a_part_that_ends_the_program_is_an_error_that_names_the_run(tmp_path: Path) -> None:
    done = asked(tmp_path, "self.training and sys.exit(0)")
    assert done.exit_code == 2
    assert "a part tried to end the program (SystemExit: 0)" in done.stderr
    assert "in the run of 'mine': evaluation, seed 0, learning rate 0.003" in done.stderr
    assert not (tmp_path / "out" / RESULTS).exists()


# Processes that die, or do not


def program(folder: Path, launcher: str, does: str) -> list[str]:
    return [sys.executable, str(PROGRAM), json.dumps(EXPERIMENT), str(folder / "out"), launcher, str(norm(folder, does))]


@pytest.mark.parametrize("launcher", ["processes", "ray"])
def test_a_process_that_dies_is_told_by_its_run_and_a_second_time_with_other_advice(launcher: str, tmp_path: Path) -> None:
    if launcher == "ray":
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    for advice in ("so run the experiment again", "for the 2. time, so that it would do so again"):
        told = subprocess.run(
            program(tmp_path, launcher, "self.training and ctypes.string_at(0)"), capture_output=True, text=True, timeout=300
        ).stderr
        assert "TrainingError: the process of the run of 'mine': evaluation, seed 0, learning rate 0.003 died, " in told
        assert advice in told


HASTY = """
import json
import sys
from llamazoo.ablation import launch, run
launch.GRACE = 2.0
if __name__ == "__main__":
    run(json.loads(sys.argv[1]), sys.argv[2], launcher=sys.argv[3], workers=2, parts=sys.argv[4:])
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_whose_step_hangs_does_not_outlive_the_experiment(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "hasty.py").write_text(HASTY)
    does = "self.training and (open(__file__ + '.at', 'w').close(), time.sleep(3600))"
    _, _, *arguments = program(tmp_path, "processes", does)
    child = subprocess.Popen([sys.executable, str(tmp_path / "hasty.py"), *arguments], start_new_session=True, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (tmp_path / "my_norm.py.at").exists() and child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(how)
    child.wait(timeout=60)
    while time.monotonic() < until + 60:
        try:
            os.killpg(child.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    pytest.fail("somebody is left")


def test_a_model_that_never_took_a_step_diverged(tmp_path: Path) -> None:
    given = {**EXPERIMENT, "seeds": 2, "train": {**EXPERIMENT["train"], "non_finite": "skip"}}
    results = run(given, tmp_path / "out", parts=[norm(tmp_path, "x = x * float('nan') if self.training else x")])
    assert [each.diverged for each in results.variant("mine").runs] == [
        "4 of 4 steps, more than half, had a loss or gradients that are not finite; no update was made in them"
    ] * 2
    assert results.variant("mine").comparisons[0].verdict == "unstable"
    assert Results.model_validate_json((tmp_path / "out" / RESULTS).read_text()) == results


def test_who_trains_again_is_told_what_to_remove(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(json.dumps({"model": BASE, "data": EXPERIMENT["data"], "train": EXPERIMENT["train"]}))
    (tmp_path / "run" / "model").mkdir(parents=True)
    done = CliRunner().invoke(app, ["train", str(tmp_path / "t.yaml"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert f"or remove {tmp_path / 'run'} and all that is in it to train again" in done.stderr
