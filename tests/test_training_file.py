"""A training file, what --set makes of it, and the number type in which its model is trained and kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import llamazoo
from llamazoo.ablation.experiment import read_experiment
from llamazoo.cli.main import app
from llamazoo.errors import SpecError, UnsupportedError
from llamazoo.spec.compose import load_spec
from llamazoo.spec.overrides import changed
from llamazoo.training.config import read_training_file
from llamazoo.training.loop import Trained

DATA = {"source": "induction", "vocab_size": 24, "length": 8, "span": 3, "spans": 2}
TRAIN = {"tokens": 256, "batch_tokens": 128, "seq_len": 16, "lr": 0.003, "evaluate_tokens": 256}
TINY = {"extends": "llama-tiny", "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}


def written(folder: Path, model: Any, **more: Any) -> Path:
    file = folder / "train.yaml"
    file.write_text(json.dumps({"model": model, "data": DATA, "train": TRAIN, **more}))
    return file


@pytest.mark.parametrize(("model", "change", "norm"), [
    ("llama-tiny", {"model.norm": "layernorm"}, ("layernorm", 1e-5)),
    ("llama-tiny", {"model.norm.eps": 0.5}, ("rmsnorm", 0.5)),
    ({"extends": "llama-tiny", "norm": "layernorm"}, {"model.norm.eps": 0.5}, ("layernorm", 0.5)),
    ({"extends": "llama-tiny", "norm": {"type": "layernorm", "eps": 0.5}}, {"model.dim": 64}, ("layernorm", 0.5)),
    ("gpt2", {"model": "llama-tiny"}, ("rmsnorm", 1e-5)),
    ("beside.yaml", {"model.n_layers": 1}, ("layernorm", 1e-5)),
])  # fmt: skip
def test_a_change_to_the_model_of_a_file_merges_as_under_extends(model: Any, change: dict[str, Any], norm: Any, tmp_path: Path) -> None:
    (tmp_path / "beside.yaml").write_text("extends: llama-tiny\nnorm: layernorm\n")
    read = read_training_file(written(tmp_path, model), change)
    spec = load_spec(read.model, folder=read.folder)
    assert (spec.norm.type, spec.norm.options.eps) == norm
    assert read_training_file(written(tmp_path, model), {"train.lr": 0.5}).model == model
    experiment = {"base": model, "variants": {"wide": {"hidden_dim": 96}}, "match": "none", "data": DATA, "train": TRAIN}
    (tmp_path / "experiment.yaml").write_text(json.dumps(experiment))
    based = read_experiment(tmp_path / "experiment.yaml", overrides={key.replace("model", "base"): value for key, value in change.items()})
    base = based.candidate("base").spec
    assert (base.norm.type, base.norm.options.eps) == norm


PARTS = {"norm": "layernorm", "feed_forward": {"type": "mlp", "activation": "relu"}, "positions": {"local": "rope"}}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"norm.eps": 0.5}, {"norm": {"type": "layernorm", "eps": 0.5}}),
        ({"norm": {"eps": 0.5}}, {"norm": {"type": "layernorm", "eps": 0.5}}),
        ({"norm.eps": 0.5, "norm": "rmsnorm"}, {"norm": {"type": "rmsnorm", "eps": 0.5}}),
        ({"norm.eps": 0.5, "norm.type": "rmsnorm"}, {"norm": {"type": "rmsnorm", "eps": 0.5}}),
        ({"norm.eps": 0.5, "norm": {"bias": False}}, {"norm": {"type": "layernorm", "eps": 0.5, "bias": False}}),
        ({"feed_forward.bias": True}, {"feed_forward": {"type": "mlp", "activation": "relu", "bias": True}}),
        ({"feed_forward.activation.x": 1}, {"feed_forward": {"type": "mlp", "activation": {"type": "relu", "x": 1}}}),
        ({"positions.local.theta": 5}, {"positions": {"local": {"type": "rope", "theta": 5}}}),
    ],
)
def test_to_set_an_option_of_a_part_keeps_which_part_it_is(change: dict[str, Any], found: dict[str, Any]) -> None:
    """Wherever a part stands by its name in a file: in the spec, and in the changes of a variant."""

    def under(*place: str) -> dict[str, Any]:
        return {".".join([*place, key]): value for key, value in change.items()}

    assert changed({"model": PARTS}, under("model"), "model") == {"model": {**PARTS, **found}}
    given = {"base": {"extends": "gpt2", **PARTS}, "variants": {"v1.5": PARTS, "other": PARTS}}
    assert changed(given, under("base"), "base", "variants") == {**given, "base": {"extends": "gpt2", **PARTS, **found}}
    for name, other in (("v1.5", "other"), ("other", "v1.5")):
        expected = {**given, "variants": {name: {**PARTS, **found}, other: PARTS}}
        assert changed(given, under("variants", name), "base", "variants") == expected


def test_a_base_that_is_named_and_changed_at_once_is_that_one_changed() -> None:
    written = {"base": {"extends": "llama-tiny", "hidden_dim": 64}}
    both = {"base.dim": 64, "base": "gpt2"}
    for change in (both, dict(reversed(both.items()))):
        assert changed(written, change, "base") == {"base": {"extends": "gpt2", "dim": 64}}
    assert changed({"base": "llama-tiny"}, {"base.dim": 64}, "base") == {"base": {"extends": "llama-tiny", "dim": 64}}


def test_a_factor_and_a_change_with_a_dotted_name_are_found_by_it() -> None:
    given = {"factors": {"feed_forward.activation": ["silu"]}, "variants": {"again": {"init.seed": 1}}}
    change = {"factors.feed_forward.activation": ["relu"], "variants.again.init.seed": 2}
    assert changed(given, change, "base", "variants") == {
        "factors": {"feed_forward.activation": ["relu"]},
        "variants": {"again": {"init.seed": 2}},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smallest.loss": 0.5}, r"smallest: is 0\.01, which has nothing within it to change; give all of it anew"),
        ({"data.tokenizer.x": 1}, r"data\.tokenizer: is 'bytes', which has nothing within it"),
        ({"factors.norm.eps": 1}, r"factors\.norm: is \['rmsnorm'\], which has nothing within it"),
        ({"base.layers.0": 1}, r"base\.layers: is \[\], which has nothing within it"),
    ],
)
def test_to_set_what_is_within_a_value_that_is_no_map_is_refused(change: dict[str, Any], message: str) -> None:
    given = {"base": {"layers": []}, "smallest": 0.01, "data": {"tokenizer": "bytes"}, "factors": {"norm": ["rmsnorm"]}}
    with pytest.raises(SpecError, match=message):
        changed(given, change, "base", "variants")


def test_an_ablation_with_an_option_set_compares_the_parts_that_its_file_names(tmp_path: Path) -> None:
    variants = {"ln": {"norm": "layernorm"}, "plain": {"feed_forward": "mlp"}}
    file = tmp_path / "experiment.yaml"
    file.write_text(json.dumps({"base": "llama-tiny", "variants": variants, "match": "none", "data": DATA, "train": TRAIN}))
    change = {"variants.ln.norm.eps": 0.5, "variants.plain.feed_forward.bias": True, "base.dim": 64}
    read = read_experiment(file, overrides=change)
    norm, feed_forward = read.candidate("ln").spec.norm, read.candidate("plain").spec.feed_forward
    assert (norm.type, norm.options.eps) == ("layernorm", 0.5)
    assert (feed_forward.type, feed_forward.options.bias) == ("mlp", True)
    assert read.candidate("base").spec.dim == 64


def test_a_seed_of_a_file_is_one_that_pytorch_takes(tmp_path: Path) -> None:
    assert read_training_file(written(tmp_path, "llama-tiny", seed=2**64 - 1)).seed == 2**64 - 1
    with pytest.raises(SpecError, match=r"train.yaml: seed: input should be less than 18446744073709551616"):
        read_training_file(written(tmp_path, "llama-tiny", seed=2**64))


@pytest.mark.parametrize(("command", "example"), [("train", "train.lr=1e-3"), ("ablate", "seeds=3")])
def test_the_help_of_set_speaks_of_the_file_that_the_command_reads(command: str, example: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert example in told.output
    assert "position.theta" not in told.output
    out = () if command == "ablate" else ("--out", str(tmp_path / "out"))
    refused = CliRunner().invoke(app, [command, str(written(tmp_path, "llama-tiny")), *out, "--set", "seed"])
    assert f"--set takes path=value, such as {example}; found 'seed'" in refused.output


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_of_half_precision_is_trained_and_kept_in_float32(dtype: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["train", str(written(tmp_path, {**TINY, "dtype": dtype})), "--out", str(tmp_path / "out")])
    assert told.exit_code == 0, told.output
    held = load_file(tmp_path / "out" / "checkpoints" / "step-000000002" / "tensors.safetensors")
    trained = {name.removeprefix("model:"): value for name, value in held.items() if name.startswith("model:")}
    assert {value.dtype for name, value in held.items() if not name.startswith("random:")} == {torch.float32}
    again = llamazoo.load_model(tmp_path / "out" / "model")
    assert again.spec.dtype == "float32"
    assert set(trained) == {name for name, _ in again.named_parameters()}
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, trained[name]), name


def test_an_ablation_trains_a_base_of_half_precision_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()
    plain = llamazoo.train

    def look(model: llamazoo.Decoder, *args: Any, **kwargs: Any) -> Trained:
        seen.update(p.dtype for p in model.parameters())
        return plain(model, *args, **kwargs)

    monkeypatch.setattr("llamazoo.ablation.work.train", look)
    given = {"base": {**TINY, "dtype": "bfloat16"}, "variants": {"layernorm": {"norm": "layernorm"}}, "data": DATA, "train": TRAIN}
    results = llamazoo.ablation.run({**given, "match": "none", "seeds": 2, "noise": False}, tmp_path)
    assert seen == {torch.float32}
    assert all(run.diverged is None for variant in results.variants for run in variant.runs)


def test_an_ablation_says_before_it_begins_which_variant_cannot_be_compiled(tmp_path: Path) -> None:
    mixed = {"feed_forward": {"type": "experts", "n_experts": 4, "top_k": 1, "hidden_dim": 8, "router": {"type": "grouped", "n_groups": 2}}}
    given = {"base": TINY, "variants": {"mixed": mixed}, "match": "none", "data": DATA, "train": {**TRAIN, "compile": True}}
    with pytest.raises(UnsupportedError, match=r"'mixed' has a router with a correction.*; set train.compile: false, or"):
        llamazoo.ablation.run(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
