"""Every example runs as a user would run it, stays short, and uses public names only."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamazoo import ablation

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
RUN = ablation.run
ABLATIONS = [path for path in EXAMPLES if path.stem.startswith("ablate_")]
EXPERIMENTS = sorted((Path(__file__).parents[1] / "examples" / "experiments").glob("*.yaml"))
TINY = ("base.dim=16", "base.hidden_dim=96", "base.n_layers=1", "data.max_bytes=200000", "seeds=1", "train.tokens=2048")
TINY += ('match="none"', "noise=false", "train.lr=0.003", "train.batch_tokens=512", "train.evaluate_tokens=512")


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path not in ABLATIONS], ids=lambda p: p.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda p: p.stem)
def test_an_ablation_prints_a_verdict_for_each_variant(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "run", lambda *given, **how: RUN(*given, **{**how, "launcher": "sequential"}))  # starts no processes
    example = runpy.run_path(str(path))
    example["main"](str(tmp_path), *TINY)
    check_verdicts(capsys.readouterr().out, example["EXPERIMENT"], tmp_path)


def test_a_part_that_a_script_defines_is_found_by_other_processes(tmp_path: Path) -> None:
    (path,) = (path for path in ABLATIONS if path.stem == "ablate_my_plugin")
    done = subprocess.run([sys.executable, str(path), str(tmp_path), *TINY], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    check_verdicts(done.stdout, runpy.run_path(str(path))["EXPERIMENT"], tmp_path)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_an_experiment_is_read_matched_and_begins_with_its_question(path: Path) -> None:
    assert path.read_text().startswith("# ")
    for each in ablation.read_experiment(path).candidates:
        assert abs(each.matched.off) <= 0.005


def check_verdicts(printed: str, experiment: dict[str, Any], folder: Path) -> None:
    *told, report = printed.splitlines()
    assert [line.split(",")[0] for line in told if ", loss: " in line] == list(experiment["variants"])
    assert report == f"report: {folder}/report.html"
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_short_and_uses_public_names(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 60
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llamazoo"):
            assert node.module in ("llamazoo", "llamazoo.ablation", "llamazoo.testing")


def test_the_quickstart_speaks_with_real_weights(smollm2: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "examples" / "quickstart.py"), str(smollm2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "Paris" in done.stdout, done.stderr
