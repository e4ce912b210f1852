"""`llamazoo diff`: where two models differ, what it costs, and what it exits with."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import llamazoo
from llamazoo.cli.main import app

TINY = llamazoo.load_spec("llama-tiny")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.yaml"
    path.write_text("extends: llama-tiny\nhidden_dim: 96\nlayers:\n- {at: 0, norm: layernorm}\n- {at: -1, attention: {window: 7}}\n")
    return path


def test_models_that_are_alike_exit_with_0_and_say_nothing(tmp_path: Path) -> None:
    same = tmp_path / "same.yaml"
    same.write_text("extends: llama-tiny\ninit: {seed: 3}\nattention: {kernel: eager}\n")
    result = run("diff", "llama-tiny", same)
    assert (result.exit_code, result.output) == (0, "")


def test_models_that_differ_exit_with_1_and_show_each_field(other: Path) -> None:
    result = run("diff", "llama-tiny", other)
    assert result.exit_code == 1
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0] == "--- llama-tiny"
    assert "other.yaml" in result.stdout
    at = lines.index("layer 0: norm.type")
    assert lines[at + 1 : at + 3] == ["- rmsnorm", "+ layernorm"]
    at = lines.index(f"layer {TINY.n_layers - 1}: attention.window")
    assert lines[at + 1 : at + 3] == ["- null", "+ 7"]
    assert f"- {TINY.hidden_dim}" in lines
    assert "+ 96" in lines
    (parameters,) = (line for line in lines if line.startswith("parameters"))
    assert "%" in parameters


def test_differences_as_json_hold_values_layers_and_costs(other: Path) -> None:
    result = run("diff", "llama-tiny", other, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["equal"] is False
    assert {"path": "norm.type", "ours": "rmsnorm", "theirs": "layernorm", "layers": [0]} in found["differences"]
    assert found["costs"]["parameters"] == {
        "ours": llamazoo.describe(TINY).parameters,
        "theirs": llamazoo.describe(llamazoo.load_spec(other)).parameters,
    }
    assert len(found["differences"]) == len(llamazoo.differences(TINY, llamazoo.load_spec(other)))


def test_a_model_is_like_itself_as_json() -> None:
    result = run("diff", "llama-tiny", "llama-tiny", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["differences"] == []


def test_a_folder_is_compared_with_a_spec(tmp_path: Path) -> None:
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"norm.eps": 1e-3}), tmp_path / "hf", format="hf")
    result = run("diff", "llama-tiny", tmp_path / "hf")
    assert result.exit_code == 1
    assert "+ 0.001" in result.stdout


def test_what_cannot_be_read_exits_with_2() -> None:
    result = run("diff", "llama-tiny", "lama-tiny")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_names_in_differences_cannot_rewrite_the_screen(tmp_path: Path) -> None:
    path = tmp_path / "[red]\x1b[2Jx.yaml"
    path.write_text("extends: llama-tiny\nnorm: layernorm\n")
    result = run("diff", "llama-tiny", path)
    assert result.exit_code == 1
    assert "\x1b[2J" not in result.output
    assert "[red]" in result.output


def test_of_models_of_different_depth_the_layers_that_both_have_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "deeper.yaml"
    path.write_text(
        "extends: llama-tiny\nn_layers: 9\nposition: {theta: 5e5}\nlayers: [{at: 1, attention: {window: 7}}, {at: 8, norm: layernorm}]\n"
    )
    found = {each.where for each in llamazoo.differences(TINY, llamazoo.load_spec(path))}
    assert found == {"n_layers", "position.theta", "layer 1: attention.window"}
