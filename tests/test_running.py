"""How the runs of an experiment are done: of the code that they are known by, wherever they are, and what is told when they cannot be."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_experiment import BASE, EXPERIMENT, of_text
from typer.testing import CliRunner

import llamazoo
from llamazoo.ablation import Heard, launch, run
from llamazoo.ablation.conduct import RESULTS, TIMINGS, _write
from llamazoo.ablation.environment import environment
from llamazoo.ablation.experiment import read_experiment
from llamazoo.ablation.finished import left
from llamazoo.ablation.launch import Launch, _apart, _carried, _registry, at_once
from llamazoo.ablation.plan import Job, Plan
from llamazoo.ablation.prepare import prepare
from llamazoo.ablation.results import Results, Timings
from llamazoo.ablation.work import Done
from llamazoo.cli.main import app
from llamazoo.errors import InputError, PluginError, TrainingError, UnsupportedError
from llamazoo.parts import registry_with
from llamazoo.training.code import code_of
from llamazoo.training.optimizer import Updater
from llamazoo.training.sealed import sealed, unsealed

PROGRAM = Path(__file__).parent / "programs" / "ablate.py"
NORM = "import torch\nimport llamazoo\n\n\nclass Mine(llamazoo.Norm):\n    name = 'mine'\n\n    def forward(self, x):\n        return {}\n"


def norm(folder: Path, returned: str, before: str = "") -> Path:
    """A file with the norm that returns this."""
    file = folder / "my_norm.py"
    file.write_text(before + NORM.format(returned))
    return file


def jobs_of(experiment: dict[str, Any], registry: llamazoo.Registry) -> list[Job]:
    return Plan(read_experiment(experiment, registry)).all_jobs()


def typed(returned: str) -> Any:
    """The norm as one types it at a prompt, where the module has the file of something else."""
    made: dict[str, Any] = {"__name__": __name__}
    exec(compile(NORM.format(returned), "<cell>", "exec"), made)  # noqa: S102 - what is tested
    return made["Mine"]


def test_an_experiment_is_read_with_the_parts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(json.dumps(EXPERIMENT))
    read = read_experiment(tmp_path / "e.yaml", parts=[str(norm(tmp_path, "x * 1.0"))])
    assert read.candidate("mine").spec.norm.type == "local/mine"


# The code that a result is known by


def test_a_part_without_a_file_is_its_own_and_no_other_class_has_its_results() -> None:
    tanh, again, sigmoid = typed("torch.tanh(x)"), typed("torch.tanh(x)"), typed("torch.sigmoid(x)")
    keys = [[job.key for job in jobs_of(EXPERIMENT, llamazoo.default_registry().extended(each))] for each in (tanh, tanh, again, sigmoid)]
    assert keys[0] == keys[1]
    assert len({base for base, _ in keys}) == 1
    assert len({mine for _, mine in keys}) == 3


def test_a_program_from_stdin_has_another_part_each_time() -> None:
    program = NORM.format("torch.tanh(x)") + (
        "\nfrom llamazoo.training.code import code_of\n"
        "registry = llamazoo.default_registry().extended(Mine)\n"
        "model = llamazoo.build_model('llama-tiny', overrides={'norm': 'mine'}, registry=registry, device='meta')\n"
        "first = code_of(model)\nassert first == code_of(model)\nprint(first['norm Mine'])\n"
    )
    told = [subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert told[0] != told[1]


def test_a_part_that_was_edited_after_it_was_imported_is_refused(tmp_path: Path) -> None:
    registry = registry_with([norm(tmp_path, "x * 1.0")])
    norm(tmp_path, "x * 1.0")  # saved without a change
    jobs_of(EXPERIMENT, registry)
    norm(tmp_path, "x * 2.0")
    with pytest.raises(PluginError, match=r"my_norm\.py: was edited after it was imported; start Python anew, or import it again"):
        run(EXPERIMENT, tmp_path / "out", registry=registry)
    assert not list(tmp_path.glob("out/runs/*"))


def test_a_file_of_parts_is_read_as_it_stands_and_executed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit within a second that leaves the size as it is: what Python compiled before would be taken for it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    noted = f"with open({str(tmp_path / 'log')!r}, 'a') as log:\n    log.write('once ')\n\n"
    found = []
    for factor in ("1.0", "1.0", "2.0"):
        file = norm(tmp_path, f"x * {factor}", noted)
        os.utime(file, (1_700_000_000, 1_700_000_000))
        part = registry_with([file]).find("norm", "mine").component
        found.append((part, part.forward(None, torch.ones(()))))  # type: ignore[attr-defined]
    assert [float(value) for _, value in found] == [1.0, 1.0, 2.0]
    assert found[0][0] is found[1][0]
    assert (tmp_path / "log").read_text() == "once once "


@pytest.fixture
def fresh_process() -> Iterator[None]:
    """As if no file of parts had been executed here on behalf of another process."""
    _registry.cache_clear()
    yield
    _registry.cache_clear()


@pytest.mark.usefixtures("fresh_process")
def test_a_process_that_finds_another_part_than_the_experiment_was_planned_with_does_not_begin(tmp_path: Path) -> None:
    file = norm(tmp_path, "x * 1.0")
    ready = prepare(read_experiment(EXPERIMENT, registry_with([file])), launcher="processes", parts=[file])
    launch = Launch(tmp_path / "runs", ready.data, None, None, (file,))
    mine = next(job for job in ready.jobs if job.variant == "mine")
    norm(tmp_path, "x * 2.0")
    with pytest.raises(TrainingError, match=r"a run of 'mine' cannot begin, since the code has changed: my_norm\.py"):
        _apart(mine, launch)
    assert not list(tmp_path.glob("runs/*/result.json"))


def test_an_edit_while_other_processes_run_never_mixes_two_codes(tmp_path: Path) -> None:
    """Processes that have the part go on with it; those of the next stage would have the new one, and do not begin."""
    log = tmp_path / "log"
    noted = f"with open({str(log)!r}, 'a') as log:\n    log.write('once ')\n\n"
    file = norm(tmp_path, "x * 1.0", noted)
    heard: list[Heard] = []

    def edit(news: Heard) -> None:
        heard.append(news)
        if len(heard) == 1:
            assert log.read_text() == "once once ", "once here, once there"
            norm(tmp_path, "x * 2.0")

    given = {**EXPERIMENT, "train": {**EXPERIMENT["train"], "lr": [0.003, 0.01]}}
    with pytest.raises(TrainingError, match=r"since the code has changed: my_norm\.py"):
        run(given, tmp_path / "out", launcher="processes", workers=1, parts=[file], watch=edit)
    assert [news.job.role for news in heard if news.job.variant == "mine"] == ["tuning", "tuning"]
    assert log.read_text() == "once once "


def test_parts_that_differ_here_and_in_other_processes_are_refused(tmp_path: Path) -> None:
    class Mine(llamazoo.Norm):
        name = "mine"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    read = read_experiment(EXPERIMENT, llamazoo.default_registry().extended(Mine))
    with pytest.raises(UnsupportedError, match=r"for 'mine' it finds others than this one has: my_norm\.py .*test_running\.py"):
        prepare(read, launcher="processes", parts=[norm(tmp_path, "x")])


# What is measured


def test_a_part_from_elsewhere_is_measured_at_longer_texts_and_found_in_the_experiments_own_registry(tmp_path: Path) -> None:
    read = read_experiment(of_text(tmp_path), registry_with([norm(tmp_path, "x * 1.0")]))
    (found,) = run(read, tmp_path / "out").variant("mine").runs
    assert found.outcomes["loss@2x"] is not None
    assert found.outcomes["loss@4x"] is not None  # beyond max_seq_len


def test_a_loss_that_is_not_finite_at_a_longer_text_is_none_and_said(tmp_path: Path) -> None:
    file = norm(tmp_path, "x if x.shape[-2] <= 16 else x * float('nan')")
    given = of_text(tmp_path, outcomes=["loss", "loss@2x"], seeds=2)
    results = run(given, tmp_path / "out", parts=[file])
    assert [each.outcomes["loss@2x"] for each in results.variant("mine").runs] == [None, None]
    assert all(each.diverged is None for each in results.variant("mine").runs)
    assert all(each.outcomes["loss@2x"] is not None for each in results.variant("base").runs)
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "mine has no loss at 2× and 4× the trained length: it cannot be built for that, or fails there, or the loss is not finite." in page
    )
    assert run(given, tmp_path / "out", parts=[file]) == results


# Where it is computed


def test_what_a_program_sets_as_default_changes_no_result(tmp_path: Path) -> None:
    file = norm(tmp_path, "x * torch.full((16,), 0.7)")  # which has the default dtype and device
    run(EXPERIMENT, tmp_path / "usual", parts=[file])
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        run(EXPERIMENT, tmp_path / "other", parts=[file])
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    ours, theirs = (Results.model_validate_json((tmp_path / name / RESULTS).read_text()) for name in ("usual", "other"))
    assert [each.runs for each in ours.variants] == [each.runs for each in theirs.variants]


def test_the_sort_of_a_device_is_in_the_key_and_its_number_is_not() -> None:
    job = jobs_of({**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}}, llamazoo.default_registry())[0]
    keys = [job.model_copy(update={"device": device}).key for device in ("cpu", "cuda", "cuda:1")]
    assert (job.device, job.key) == ("cpu", keys[0])
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize(
    ("launcher", "device", "message"),
    [
        ("sequential", "cuda:77", "there is no device 'cuda:77' here; here are: cpu"),
        ("sequential", "meta", "nothing can be trained on 'meta' here; here are: cpu"),
        ("processes", "gpu", "'gpu' names no device"),
        ("ray", "cuda:1", "Ray chooses a device of its machines by itself; say cpu or cuda, not 'cuda:1'"),
    ],
)
def test_a_device_that_is_not_here_is_refused_before_anything_is_trained(launcher: str, device: str, message: str, tmp_path: Path) -> None:
    given = {**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}}
    with pytest.raises(UnsupportedError, match=message):
        run(given, tmp_path / "out", launcher=launcher, device=device)
    assert not (tmp_path / "out").exists()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_an_experiment_on_a_gpu_says_so(tmp_path: Path) -> None:
    results = run({**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}}, tmp_path, device="cuda")
    assert results.environment["device"] == "cuda"
    assert results.environment["gpu"] == torch.cuda.get_device_name()


def test_the_environment_is_that_of_the_runs(tmp_path: Path) -> None:
    read = read_experiment({**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}})
    run(read, tmp_path)
    result = next(tmp_path.glob("runs/*/result.json"))
    machine = json.loads(result.read_text())["machine"]
    assert machine["torch"] == str(torch.__version__)
    assert machine["device"] == "cpu"
    found = unsealed(result.read_bytes(), Done)
    result.write_text(sealed(found.model_copy(update={"machine": {**machine, "processor": "Another Processor"}})))
    assert run(read, tmp_path).environment["processor"] == ", ".join(sorted(["Another Processor", machine["processor"]]))
    assert environment([], [machine])["processor"] == machine["processor"]


# What is told


def test_an_error_in_a_part_says_in_which_run_it_came(tmp_path: Path) -> None:
    file = norm(tmp_path, "x if not self.training else {}['mine']")
    with pytest.raises(KeyError, match="mine") as caught:
        run(EXPERIMENT, tmp_path / "out", parts=[file])
    assert caught.value.__notes__ == ["in the run of 'mine': evaluation, seed 0, learning rate 0.003"]


@pytest.mark.parametrize("launcher", ["processes", "ray"])
def test_an_error_in_another_process_says_in_which_run_it_came(launcher: str, tmp_path: Path) -> None:
    if launcher == "ray":
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    odd = "class Odd(Exception):\n    def __init__(self, one, two):\n        super().__init__(f'{one} and {two}')\n\n\n"
    file = norm(tmp_path, "x if not self.training else odd()", odd + "def odd():\n    raise Odd('this', 'that')\n\n\n")
    arguments = [sys.executable, str(PROGRAM), json.dumps(EXPERIMENT), str(tmp_path / "out"), launcher, str(file)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "TrainingError: Odd: this and that" in done.stderr
    assert "in the run of 'mine': evaluation, seed 0, learning rate 0.003" in done.stderr
    assert "in odd\n" in done.stderr, "where it came is told too"


def test_an_error_that_can_be_sent_is_sent_as_it_is() -> None:
    error = InputError("too long")
    error.add_note("in the run")
    assert _carried(error) is error
    local = type("Local", (Exception,), {})("mute")
    local.add_note("in the run")
    carried = _carried(local)
    assert (type(carried), str(carried), carried.__notes__[0]) == (TrainingError, "Local: mute", "in the run")


def test_the_command_line_says_in_which_run_it_came(tmp_path: Path) -> None:
    file = norm(tmp_path, "x if not self.training else refuse()", "def refuse():\n    raise llamazoo.InputError('not these')\n\n\n")
    (tmp_path / "e.yaml").write_text(json.dumps(EXPERIMENT))
    done = CliRunner().invoke(app, ["ablate", str(tmp_path / "e.yaml"), "--parts", str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "not these\n  in the run of 'mine': evaluation, seed 0, learning rate 0.003" in done.stderr


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, ["--launcher", "slurm"], "no launcher 'slurm'"),
        ({}, ["--device", "cuda:77"], "there is no device 'cuda:77'"),
        (
            {"variants": {"learned": {"position": "learned"}}, "outcomes": ["loss", "loss@4x"]},
            [],
            "'learned' cannot be built for 64 tokens",
        ),
        ({"base": {**BASE, "vocab_size": 7}}, [], "more than fit into vocab_size"),
    ],
)
def test_a_dry_run_tells_what_a_run_would(changes: dict[str, Any], options: list[str], message: str, tmp_path: Path) -> None:
    given = of_text(tmp_path, **{"variants": {"layernorm": {"norm": "layernorm"}}, **changes})
    (tmp_path / "e.yaml").write_text(json.dumps(given))
    for more in (["--dry-run"], ["--out", str(tmp_path / "out")]):
        done = CliRunner().invoke(app, ["ablate", str(tmp_path / "e.yaml"), *options, *more])
        assert done.exit_code == 2
        assert message in done.stderr
    assert not (tmp_path / "out").exists()


def written(folder: Path, **changes: Any) -> str:
    """The experiment with a built-in part, and changes, as a file."""
    (folder / "e.yaml").write_text(json.dumps({**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}, **changes}))
    return str(folder / "e.yaml")


def test_a_dry_run_needs_ray_as_a_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for more in (["--dry-run"], ["--out", str(tmp_path / "out")]):
        done = CliRunner().invoke(app, ["ablate", written(tmp_path), "--launcher", "ray", *more])
        assert done.exit_code == 2
        assert "pip install 'llamazoo[ray]'" in done.stderr


@pytest.mark.parametrize("more", [["--dry-run"], [], ["--launcher", "processes", "--workers", "1"]])
def test_the_traceback_of_an_error_in_a_part_begins_in_the_part_and_names_the_variant(more: list[str], tmp_path: Path) -> None:
    file = norm(tmp_path, "x if not self.training else torch.nn.Linear(2, 2)(x)")
    (tmp_path / "e.yaml").write_text(json.dumps(EXPERIMENT))
    done = CliRunner().invoke(app, ["ablate", str(tmp_path / "e.yaml"), "--parts", str(file), "--out", str(tmp_path / "out"), *more])
    assert done.exit_code == 1
    assert ("in the first steps of 'mine'" if "--dry-run" in more else "in the run of 'mine': evaluation, seed 0") in done.stderr
    files = re.findall(r'File "(.*?)", line', done.stderr)
    assert [Path(each).name for each in files if "llamazoo/" in each] == []
    assert Path(files[1 if "processes" in more else 0]) == file
    assert files[-1].endswith("linear.py"), "what the part calls is told"


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_an_error_in_a_part_before_any_training_names_the_variant_too(more: list[str], tmp_path: Path) -> None:
    file = norm(tmp_path, "{}['mine']")
    (tmp_path / "e.yaml").write_text(json.dumps(EXPERIMENT))
    done = CliRunner().invoke(app, ["ablate", str(tmp_path / "e.yaml"), "--parts", str(file), "--out", str(tmp_path / "out"), *more])
    assert done.exit_code == 1
    assert "KeyError: 'mine'\nin the model of 'mine', before it is trained\n" in done.stderr
    assert re.findall(r'File "(.*?)", line', done.stderr) == [str(file)]


@pytest.mark.parametrize("dry", [True, False])
def test_an_error_of_our_own_has_all_of_its_traceback(dry: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("llamazoo.training.optimizer.Updater.step", fail)
    done = CliRunner().invoke(app, ["ablate", written(tmp_path), "--out", str(tmp_path / "out"), *(["--dry-run"] if dry else [])])
    assert isinstance(done.exception, KeyError)
    assert "base" in done.exception.__notes__[0]


# What is interrupted, and what is left


def test_a_dry_run_tells_how_many_runs_are_through_and_the_time_of_the_others(tmp_path: Path) -> None:
    train = {**EXPERIMENT["train"], "lr": [0.003, 0.01]}
    arguments = ["ablate", written(tmp_path, train=train, seeds=2, noise=True), "--out", str(tmp_path / "out")]

    def told(*more: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*arguments, "--dry-run", "--json", *more])
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    before = told()
    assert (before["jobs"], before["finished"]) == (2 * (2 * 2 + 2 + 1), 0)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    after = told()
    assert (after["jobs"], after["finished"], after["seconds"]) == (14, 14, 0)
    assert "14 runs of 7,168 tokens in all, all of which are through already\n" in CliRunner().invoke(app, [*arguments, "--dry-run"]).stdout
    more = told("--set", "seeds=3")
    assert (more["jobs"], more["finished"]) == (21, 14)
    assert more["seconds"] > 0


@pytest.mark.parametrize(("role", "waiting"), [("evaluation", 1), ("noise", 1), ("tuning", 3)])
def test_what_is_left_is_what_a_run_then_does(role: str, waiting: int, tmp_path: Path) -> None:
    """The base's noise run and its evaluation wait for its trials."""
    train = {**EXPERIMENT["train"], "lr": [0.003, 0.01]}
    read = read_experiment({**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}, "train": train, "seeds": 2, "noise": True})
    heard: list[Heard] = []
    results = run(read, tmp_path, watch=heard.append)
    ready = prepare(read)
    assert left(ready.plan, tmp_path / "runs") == []
    gone = next(news.job for news in heard if news.job.role == role and news.job.variant == "base")
    (tmp_path / "runs" / gone.key / "result.json").unlink()
    todo = left(ready.plan, tmp_path / "runs")
    assert len(todo) == waiting
    assert gone in todo
    assert run(read, tmp_path) == results
    assert left(ready.plan, tmp_path / "runs") == []


def test_an_interrupt_says_how_many_runs_are_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = launch.perform, []

    def interrupted(job: Job, *args: Any, **more: Any) -> Any:
        calls.append(job)
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return plain(job, *args, **more)

    monkeypatch.setattr(launch, "perform", interrupted)
    for through in ("no run is through", "1 of 2 runs are through"):
        done = CliRunner().invoke(app, ["ablate", written(tmp_path), "--out", str(tmp_path / "out")])
        assert done.exit_code == 130
        assert f"interrupted: {through}; the same command goes on where it was\n" in done.stderr


def test_an_interrupt_of_a_training_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"model": BASE, "data": EXPERIMENT["data"], "train": EXPERIMENT["train"]}
    (tmp_path / "t.yaml").write_text(json.dumps(given))
    plain = Updater.step

    def interrupted(self: Updater, batch: Any, step: int) -> Any:
        if step == 2:
            raise KeyboardInterrupt
        return plain(self, batch, step)

    monkeypatch.setattr(Updater, "step", interrupted)
    done = CliRunner().invoke(app, ["train", str(tmp_path / "t.yaml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 130
    assert "interrupted: at step 2 of 4; the same command goes on, from the last checkpoint if there is one\n" in done.stderr


@pytest.mark.parametrize("whole", [True, False], ids=["ctrl-c", "the first process"])
def test_an_interrupt_of_an_experiment_in_processes_ends_its_runs_and_says_one_thing(whole: bool, tmp_path: Path) -> None:
    long = {**EXPERIMENT["train"], "tokens": 50_000_000}  # for hours
    arguments = ["ablate", written(tmp_path, train=long), "--launcher", "processes", "--workers", "2", "--out", str(tmp_path / "out")]
    child = subprocess.Popen(
        [sys.executable, "-m", "llamazoo", *arguments],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("out/runs/*/metrics.jsonl"))) < 2 and child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    (os.killpg if whole else os.kill)(child.pid, signal.SIGINT)
    _, told = child.communicate(timeout=120)
    assert child.returncode == 130, told
    assert "interrupted: no run is through; the same command goes on where it was\n" in told
    assert "Traceback" not in told
    assert len(list(tmp_path.glob("out/runs/*/checkpoints/step-*"))) == 2, "each leaves a checkpoint"
    while time.monotonic() < until + 60:
        try:
            os.killpg(child.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("somebody is left")


def test_the_time_is_told_for_as_many_at_once_as_there_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_of({**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}, "seeds": 8}, llamazoo.default_registry())
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert [at_once(name, jobs, workers) for name, workers in (("sequential", 8), ("processes", None), ("processes", 5))] == [1, 3, 5]
    assert at_once("processes", jobs[:2], None) == 2
    assert at_once("processes", [job.model_copy(update={"device": "cuda"}) for job in jobs], None) == 1


def test_two_programs_that_end_at_once_in_one_folder_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}}
    results = run(given, tmp_path)
    timings = Timings.model_validate_json((tmp_path / TIMINGS).read_text())
    replace = Path.replace

    def after_another(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        _write(tmp_path, results, timings)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", after_another)
    _write(tmp_path, results, timings)
    assert Results.model_validate_json((tmp_path / RESULTS).read_text()) == results
    assert not list(tmp_path.glob(".*"))


def test_the_code_of_built_in_parts_is_the_version() -> None:
    assert set(code_of(llamazoo.build_model("llama-tiny", device="meta"))) == {"llamazoo", "torch"}
