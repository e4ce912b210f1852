"""Every hook, by the example that docs/ gives of it; and every way in which a plugin can be refused."""

import copy
import importlib.util
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner
from wheels import wheel

import llamazoo
from llamazoo import discovery, hooks
from llamazoo.cli.main import app

DOCS = Path(__file__).parents[1] / "docs"
HOOKS = [name for name in vars(hooks) if name.startswith("llamazoo_")]
SMALL = {"n_layers": 2, "dim": 32, "hidden_dim": 32, "n_heads": 2, "vocab_size": 40}


def section(name: str) -> str:
    """What docs/ say under the heading of a hook's name."""
    for page in sorted(DOCS.glob("*.md")):
        found = re.search(rf"^##+ `{re.escape(name)}`\n(.*?)(?=^##? |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
        if found:
            return found[1]
    raise AssertionError(f"no page in docs/ has a section headed `{name}`")


def example(*names: str, folder: Path) -> ModuleType:
    """A plugin made of the examples in docs/ of these hooks."""
    path = folder / f"plugin_{'_'.join(names).replace('.', '_')}.py"
    path.write_text("\n".join(block for name in names for block in re.findall(r"```python\n(.*?)```", section(name), re.DOTALL)))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def registry_with(*plugins: object) -> llamazoo.Registry:
    """llamazoo's own parts, and those of plugins called one, two and so on."""
    registry = llamazoo.Registry.built_in()
    for name, plugin in zip(("one", "two", "three"), plugins, strict=False):
        registry.add_plugin(plugin, name, "1.0")
    return registry


def plugin(**functions: Callable[..., Any]) -> object:
    """A plugin with these hooks, each named without the llamazoo_ before it."""
    return SimpleNamespace(**{f"llamazoo_{name}": hookimpl(f"llamazoo_{name}", function) for name, function in functions.items()})


def hookimpl(name: str, function: Callable[..., Any]) -> Any:
    return llamazoo.hookimpl(specname=name)(function)


@pytest.mark.parametrize("name", [*HOOKS, discovery.COMMANDS])
def test_every_hook_has_a_section_in_the_docs_with_an_example_that_is_tried_here(name: str) -> None:
    assert "```python\n" in section(name)
    here = Path(__file__).read_text()
    assert re.search(rf'example\([^)]*"{re.escape(name)}"', here)


def test_every_hook_says_what_it_is_for() -> None:
    assert len(HOOKS) >= 5
    assert [name for name in HOOKS if not getattr(hooks, name).__doc__] == []


# Components and rules


def hf_folder(folder: Path, extra: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Hugging Face folder of a tiny llama, with further tensors; returns all of them."""
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={**SMALL, "head.tied": False}), folder, format="hf")
    tensors = {**load_file(folder / "model.safetensors"), **extra}
    save_file(tensors, folder / "model.safetensors")
    return tensors


ALPHAS = [f"model.layers.{i}.{norm}.alpha" for i in (0, 1) for norm in ("input_layernorm", "post_attention_layernorm")]


def test_rules_load_a_foreign_parts_tensors_from_another_formats_checkpoint(tmp_path: Path) -> None:
    registry = registry_with(example("llamazoo_components", "llamazoo_rules", folder=tmp_path))
    tensors = hf_folder(tmp_path / "hf", {name: torch.rand(1) for name in [*ALPHAS, "model.norm.alpha"]})
    spec = llamazoo.load_spec("llama-tiny", {**SMALL, "norm": "tuned"}, registry=registry)
    assert spec.plugins == {"one": "1.0"}
    model = llamazoo.build_model(spec, weights=tmp_path / "hf", registry=registry)
    assert torch.equal(model.get_parameter("blocks.1.feed_forward_norm.alpha"), tensors[ALPHAS[3]])
    assert torch.equal(model.get_parameter("final_norm.alpha"), tensors["model.norm.alpha"])
    without = registry_with(example("llamazoo_components", folder=tmp_path))
    spec = llamazoo.load_spec("llama-tiny", {**SMALL, "norm": "tuned"}, registry=without)
    with pytest.raises(llamazoo.WeightsError, match="of the norm 'rmsnorm' in the checkpoint, of the norm 'tuned' in the model"):
        llamazoo.build_model(spec, weights=tmp_path / "hf", registry=without)


def test_a_plugin_has_no_say_in_how_a_model_without_its_parts_is_stored(tmp_path: Path) -> None:
    def rules(format: str, spec: llamazoo.ArchitectureSpec) -> list[llamazoo.Rule]:  # noqa: A002
        raise AssertionError("asked")

    registry = registry_with(plugin(rules=rules, components=lambda: [Plain]))
    hf_folder(tmp_path / "hf", {})
    llamazoo.load_model(tmp_path / "hf", registry=registry)
    model = llamazoo.build_model("llama-tiny", overrides={**SMALL, "norm": "plain"}, registry=registry)
    with pytest.raises(llamazoo.PluginError, match=r"one 1\.0: llamazoo_rules\(\) failed: AssertionError: asked"):
        llamazoo.save_model(model, tmp_path / "native")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda: [("theirs", "ours")], r"llamazoo_rules\(\) gave \('theirs', 'ours'\), which is no rule"),
        (lambda: 5, r"'int' object is not iterable"),
        (lambda: (_ for _ in ()).throw(SystemExit(0)), "SystemExit: 0"),
    ],
    ids=["tuples", "number", "exit"],
)
def test_rules_that_are_none_are_told_as_the_plugins(result: Callable[[], Any], message: str, tmp_path: Path) -> None:
    registry = registry_with(plugin(rules=lambda spec: result(), components=lambda: [Plain]))
    model = llamazoo.build_model("llama-tiny", overrides={**SMALL, "norm": "plain"}, registry=registry)
    with pytest.raises(llamazoo.PluginError, match=rf"one 1\.0: llamazoo_rules\(\) failed: .*{message}"):
        llamazoo.save_model(model, tmp_path / "model")


def test_rules_cannot_change_what_a_format_says_of_its_own_tensors(tmp_path: Path) -> None:
    rules = [llamazoo.Drop("**", "stolen"), llamazoo.Rename("stolen.**", "blocks.**")]
    registry = registry_with(plugin(rules=lambda spec: rules, components=lambda: [Plain]))
    model = llamazoo.build_model("llama-tiny", overrides={**SMALL, "norm": "plain"}, registry=registry)
    llamazoo.save_model(model, tmp_path / "model")
    again = llamazoo.load_model(tmp_path / "model", registry=registry)
    assert again.load_report is not None
    assert again.load_report.dropped == {}
    assert all(torch.equal(p, again.get_parameter(name)) for name, p in model.named_parameters())


# Formats


def test_a_format_of_a_plugin_writes_and_reads_and_converts(tmp_path: Path) -> None:
    registry = registry_with(example("llamazoo_formats", folder=tmp_path))
    model = llamazoo.build_model("llama-tiny", overrides=SMALL, registry=registry)
    llamazoo.save_model(model, tmp_path / "npz", format="npz")
    assert [path.name for path in (tmp_path / "npz").iterdir()] == ["model.npz"]
    again = llamazoo.load_model(tmp_path / "npz", registry=registry)
    assert all(torch.equal(p, again.get_parameter(name)) for name, p in model.named_parameters())
    llamazoo.save_model(again, tmp_path / "one", format="one/npz")
    with pytest.raises(llamazoo.WeightsError, match=r"is no checkpoint of a known format \(hf: "):
        llamazoo.load_model(tmp_path / "npz", registry=registry_with())


def named(name: str, **methods: Any) -> type[llamazoo.Format]:
    """A format's class."""
    return type("Made", (llamazoo.Format,), {"name": name, "looks_for": "something", **methods})


def test_a_format_that_fails_while_it_looks_is_named_and_built_in_ones_are_not_disturbed(tmp_path: Path) -> None:
    failing = named("failing", recognises=classmethod(lambda cls, path: 1 // 0))
    registry = registry_with(plugin(formats=lambda: [failing]))
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides=SMALL), tmp_path / "model")
    llamazoo.load_model(tmp_path / "model", registry=registry)
    with pytest.raises(llamazoo.PluginError, match=r"one 1\.0: the format 'failing' failed while it looked at .*: ZeroDivisionError"):
        llamazoo.load_model(tmp_path, registry=registry)


# Tokenizers


def test_a_tokenizer_of_a_plugin_is_saved_found_and_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("llamazoo_tokenizers", folder=tmp_path)
    registry = registry_with(module)
    (tmp_path / "words.txt").write_text("?\nto\nbe\nor\nnot")
    tokenizer = llamazoo.load_tokenizer(tmp_path / "words.txt", registry=registry)
    assert tokenizer.decode(tokenizer.encode("to be and not to be")) == "to be ? not to be"
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides=SMALL), tmp_path / "model", tokenizer=tokenizer)
    again = llamazoo.load_tokenizer(tmp_path / "model", registry=registry)
    assert (type(again).__name__, again.vocab_size) == ("Words", 5)
    monkeypatch.setattr("llamazoo.parts.default_registry", lambda: registry)
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "model"), str(tmp_path / "hf"), "--to", "hf"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "hf" / "words.txt").read_bytes() == (tmp_path / "words.txt").read_bytes()
    with pytest.raises(llamazoo.TokenizerError, match=r"has no tokenizer: none of tokenizer\.json, tokenizer\.model"):
        llamazoo.load_tokenizer(tmp_path / "hf", registry=registry_with())


def tokenizer_class(file: str, recognises: bool = True) -> type[llamazoo.FileTokenizer]:
    """A tokenizer's class that keeps nothing but the path."""

    def init(self: Any, path: Path) -> None:
        self.path = path

    methods = {"__init__": init, "recognises": classmethod(lambda cls, path: recognises)}
    return type("Made", (llamazoo.FileTokenizer,), {"name": "made", "files": (file,), **methods})


def test_a_file_is_read_by_the_tokenizer_of_that_very_name(tmp_path: Path) -> None:
    registry = registry_with(plugin(tokenizers=lambda: [tokenizer_class("ranks.json")]))
    (tmp_path / "ranks.json").write_text("{}")
    assert type(llamazoo.load_tokenizer(tmp_path, registry=registry)).__name__ == "Made"


def test_two_tokenizers_for_one_file_are_an_error_that_names_both(tmp_path: Path) -> None:
    both = [plugin(tokenizers=lambda: [tokenizer_class("ranks.bin")]) for _ in range(2)]
    (tmp_path / "ranks.bin").touch()
    with pytest.raises(llamazoo.TokenizerError, match="could be read by the tokenizers one/made or two/made; block one"):
        llamazoo.load_tokenizer(tmp_path, registry=registry_with(*both))
    apart = registry_with(both[0], plugin(tokenizers=lambda: [tokenizer_class("ranks.bin", recognises=False)]))
    assert type(llamazoo.load_tokenizer(tmp_path, registry=apart)).__name__ == "Made"


# The zoo


def test_a_folder_of_the_zoo_is_built_extended_and_listed_and_a_bad_spec_in_it_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo").mkdir()
    for name, text in (("small", "extends: llama-tiny\nn_layers: 3\n"), ("smaller", "extends: small\nn_layers: 1\n"), ("bad", "dim: no")):
        (tmp_path / "zoo" / f"{name}.yaml").write_text(text)
    registry = registry_with(example("llamazoo_zoo", folder=tmp_path))
    assert {"small", "smaller", "bad"} < set(llamazoo.zoo_names(registry))
    assert llamazoo.build_model("smaller", registry=registry).spec.n_layers == 1
    assert llamazoo.load_spec({"extends": "one/small", "dim": 64}, registry=registry).n_layers == 3
    with pytest.raises(llamazoo.SpecError, match=r"zoo/one/bad\.yaml: \d+ problems"):
        llamazoo.load_spec("bad", registry=registry)
    monkeypatch.setattr("llamazoo.parts.default_registry", lambda: registry)
    told = CliRunner().invoke(app, ["list", "zoo"], env={"COLUMNS": "200"})
    assert told.exit_code == 0
    assert "\nsmaller " in told.stdout
    assert "bad cannot be used: zoo/one/bad.yaml: " in told.stdout
    listed = json.loads(CliRunner().invoke(app, ["list", "zoo", "--json"]).stdout)
    assert list(listed["broken"]) == ["bad"]


# Commands


def test_a_command_of_a_plugin_runs_beside_llamazoos_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("llamazoo.commands", folder=tmp_path)
    zipfile.ZipFile(wheel(tmp_path, "zoo-greeter", {}, commands={"greet": f"{module.__name__}:greet"})).extractall(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert CliRunner().invoke(app, ["greet", "--name", "Ada"]).stdout == "hello Ada\n"


# What is refused


class Plain(llamazoo.Norm):
    """Features as they are."""

    name = "plain"

    def forward(self, x: Tensor) -> Tensor:
        return x


def norm(**changes: Any) -> type[llamazoo.Component]:
    return type("Made", (Plain,), changes)


def halfway() -> Iterator[type[llamazoo.Component]]:
    yield Plain
    raise RuntimeError("halfway")


def lone(**attributes: Any) -> object:
    return SimpleNamespace(**attributes)


REFUSED = [
    (plugin(components=lambda: None), r"llamazoo_components\(\) returned None; return a list"),
    (plugin(components=lambda: Plain), r"llamazoo_components\(\) returned <class .*>; return a list"),
    (plugin(components=lambda: {"plain": Plain}), r"returned {'plain': <class .*>}; return a list"),
    (plugin(zoo=lambda: "/"), r"llamazoo_zoo\(\) returned '/'; return a list"),
    (plugin(components=halfway), "halfway"),
    (plugin(components=lambda: ["plain"]), "'plain' is no component class; derive it from llamazoo.Norm"),
    (plugin(components=lambda: [Plain, 5]), "5 is no component class"),
    (plugin(components=lambda: [torch.nn.Linear]), "Linear'> is no component class"),
    (plugin(components=lambda: [llamazoo.Norm]), r"Norm has no norm's name; set `name = \"...\"` in the class"),
    (plugin(components=lambda: [llamazoo.Component]), "Component has no kind; derive it from llamazoo.Norm"),
    (plugin(components=lambda: [Plain, norm()]), "one 1.0 offers the norm 'plain' twice"),
    (plugin(components=lambda: [norm(kind="attention")]), "Made says that its kind is attention; derive it from llamazoo.Attention"),
    (plugin(components=lambda: [norm(kind="[red]")]), "Made has no kind"),
    (plugin(components=lambda: [norm(name="[red]x")]), r"found '\[red\]x'"),
    (plugin(components=lambda: [norm(name="../x")]), r"found '\.\./x'"),
    (plugin(components=lambda: [norm(name="pl\u0430in")]), r"found 'pl\\u0430in'"),
    (plugin(components=lambda: [norm(name=5)]), "found '5'"),
    (plugin(components=lambda: [norm(aliases={"a b": {}})]), "'a b' cannot name a norm"),
    (plugin(components=lambda: [norm(aliases=["other"])]), "the aliases of .*Made are not a map from names to maps of options"),
    (plugin(components=lambda: [norm(aliases={"other": {"sise": 3}})]), "the alias 'other' of .*Made stands for sise, which is no option"),
    (plugin(components=lambda: [norm(Options=dict)]), "the Options of .*Made are not derived from llamazoo.ComponentOptions"),
    (plugin(formats=lambda: [Plain]), "is no checkpoint format; derive a class from llamazoo.Format"),
    (plugin(formats=lambda: [llamazoo.Format]), "is no checkpoint format; derive a class from llamazoo.Format"),
    (plugin(formats=lambda: [named("[red]x")]), r"has no checkpoint format's name"),
    (plugin(formats=lambda: [type("Made", (llamazoo.Format,), {"name": "x"})]), "Made does not say what marks it; set `looks_for"),
    (plugin(tokenizers=lambda: [named("x")]), "is no tokenizer; derive a class from llamazoo.FileTokenizer"),
    (plugin(tokenizers=lambda: [tokenizer_class("../x")]), "Made does not say what its file is called; set `files"),
    (plugin(zoo=lambda: ["/nowhere"]), r"llamazoo_zoo\(\) names the folder '/nowhere', and there is none"),
    (plugin(zoo=lambda: [5]), "names the folder '5', and there is none"),
    (
        lone(llamazoo_rules=llamazoo.hookimpl(lambda form: [Plain])),
        r"'form'.* declared in the hookimpl but can not be found in the hookspec",
    ),
    (lone(llamazoo_norms=llamazoo.hookimpl(lambda: [Plain])), "unknown hook 'llamazoo_norms'"),
    (lone(llamazoo_components=lambda: [Plain]), r"llamazoo_components\(\) is no hook without the mark @llamazoo.hookimpl above it"),
    (lone(), "implements no hook of llamazoo; mark a function"),
    (lone(llamazoo_hook_version=2), "was written for version 2 of llamazoo's hooks, this llamazoo has version 1; install"),
    (lone(llamazoo_hook_version="1"), "was written for version '1' of llamazoo's hooks"),
    (lone(llamazoo_hook_version=True), "was written for version True of llamazoo's hooks"),
]


@pytest.mark.parametrize(("unusable", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_an_unusable_plugin_is_refused_whole(unusable: object, message: str) -> None:
    registry = llamazoo.Registry.built_in()
    before = registry.contents()
    with pytest.raises(Exception, match=message) as raised:
        registry.add_plugin(unusable, "one", "1.0")
    assert isinstance(raised.value, llamazoo.PluginError) or "halfway" in message
    assert registry.contents() == before


def test_a_zoo_file_whose_name_nobody_could_ask_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "[red]x.yaml").touch()
    with pytest.raises(llamazoo.PluginError, match=r"'\[red\]x' cannot name a model of the zoo"):
        registry_with(plugin(zoo=lambda: [tmp_path]))


def test_a_plugin_that_does_not_say_for_which_hooks_it_was_written_means_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    registry_with(plugin(components=lambda: [Plain]))
    monkeypatch.setattr(hooks, "HOOK_VERSION", 2)
    with pytest.raises(llamazoo.PluginError, match="was written for version 1 of llamazoo's hooks, this llamazoo has version 2"):
        llamazoo.Registry().add_plugin(plugin(components=lambda: [Plain]), "one")


class Odd(llamazoo.Norm):
    """Options whose defaults are no data."""

    name = "odd"

    class Options(llamazoo.ComponentOptions):
        tensor: Any = torch.ones(1)
        lost: Any = Field(default_factory=lambda: 1 // 0)


def test_a_part_whose_defaults_cannot_be_written_spoils_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_with(plugin(components=lambda: [Odd]))
    monkeypatch.setattr("llamazoo.parts.default_registry", lambda: registry)
    for arguments in (["list"], ["list", "norm", "--json"]):
        told = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
        assert told.exit_code == 0
        assert "tensor([1.])" in told.stdout
        assert "(ZeroDivisionError: integer division or modulo by zero)" in told.stdout
    assert CliRunner().invoke(app, ["schema"]).exit_code == 0


# Made in code


def test_a_plugin_may_be_taken_in_without_a_distribution_and_is_then_local() -> None:
    registry = llamazoo.Registry.built_in()
    registry.add_plugin(plugin(components=lambda: [Plain], rules=lambda spec: []))
    spec = llamazoo.load_spec("llama-tiny", {**SMALL, "norm": "plain"}, registry=registry)
    assert (spec.norm.type, spec.plugins) == ("local/plain", {})
    assert registry.rules("hf", spec) == []


def test_a_part_registered_again_replaces_itself_with_all_its_names() -> None:
    llamazoo.default_registry.cache_clear()
    try:
        llamazoo.register(norm(aliases={"simple": {}, "bare": {}}))
        again = llamazoo.register(norm(aliases={"simple": {}}))
        assert llamazoo.load_spec("llama-tiny", {"norm": "simple"}).norm.component is again
        with pytest.raises(llamazoo.UnknownComponentError, match="no norm named 'bare'"):
            llamazoo.load_spec("llama-tiny", {"norm": "bare"})
        own = llamazoo.register(norm(name="rmsnorm"))
        assert llamazoo.load_spec("llama-tiny", {"norm": "rmsnorm"}).norm.component is not own
        assert llamazoo.load_spec("llama-tiny", {"norm": "local/rmsnorm"}).norm.component is own
    finally:
        llamazoo.default_registry.cache_clear()


@pytest.mark.parametrize("name", ["llamazoo/x", "../x", "", "a b", "[red]", "pl\u0430in"])
def test_what_is_taken_in_under_a_distributions_name_must_have_one(name: str) -> None:
    registry = llamazoo.Registry.built_in()
    for take in (registry.add, lambda part, *whose: registry.add_plugin(plugin(components=lambda: [part]), *whose)):
        with pytest.raises(llamazoo.PluginError, match="is no distribution's name and version"):
            take(Plain, name, "1.0")
        with pytest.raises(llamazoo.PluginError, match="is no distribution's name and version"):
            take(Plain, "one", "\x1b[31m")


def test_a_refused_registration_leaves_the_registry_as_it_was() -> None:
    registry = registry_with(plugin(components=lambda: [Plain]))
    before = registry.contents()
    with pytest.raises(llamazoo.DuplicateComponentError, match="one 0 offers the norm 'plain' twice"):
        registry.add(norm(name="new", aliases={"plain": {}}), "one")
    assert registry.contents() == before


class Several(Plain):
    """A norm that holds others, in every way in which options can."""

    name = "several"

    class Options(llamazoo.ComponentOptions):
        class Inner(llamazoo.ComponentOptions):
            norm: llamazoo.NormPart = llamazoo.part("rmsnorm")

        each: list[llamazoo.NormPart] = []
        named: dict[str, llamazoo.NormPart] = {}
        inner: Inner = Inner()


@pytest.mark.parametrize("held", [{"each": ["two/plain"]}, {"named": {"x": "two/plain"}}, {"inner": {"norm": "two/plain"}}], ids=str)
def test_foreign_parts_are_recorded_however_deep_they_stand(held: dict[str, Any]) -> None:
    registry = registry_with(plugin(components=lambda: [Several]), plugin(components=lambda: [Plain]))
    spec = llamazoo.load_spec("llama-tiny", {"norm": {"type": "several", **held}}, registry=registry)
    assert spec.plugins == {"one": "1.0", "two": "1.0"}
    assert llamazoo.load_spec(spec.canonical(), registry=registry) == spec


def test_a_foreign_part_that_every_layer_replaces_is_recorded_too() -> None:
    registry = registry_with(plugin(components=lambda: [Plain]))
    spec = llamazoo.load_spec(
        "llama-tiny", {"norm": "plain", "final_norm": "none", "layers": [{"every": 1, "norm": "none"}]}, registry=registry
    )
    assert spec.plugins == {"one": "1.0"}


@pytest.mark.parametrize("override", ["twin", {"type": "twin"}])
def test_an_ambiguous_name_in_an_override_is_told_with_its_path(override: object) -> None:
    both = registry_with(*(plugin(components=lambda: [norm(name="twin")]) for _ in range(2)))
    with pytest.raises(
        llamazoo.DuplicateComponentError, match=r"norm: norm 'twin' is offered by one 1\.0 and two 1\.0; ask for one/twin or"
    ):
        llamazoo.load_spec("llama-tiny", {"norm": override}, registry=both)
    inside = {"attention": {"type": "multihead", "qk_norm": override}}
    with pytest.raises(llamazoo.SpecError, match=r"attention\.qk_norm: .*norm 'twin' is offered by one 1\.0 and two 1\.0"):
        llamazoo.load_spec("llama-tiny", inside, registry=both)


# Specs and models as objects


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "plugins: .*found 5"),
        (None, "plugins: .*found None"),
        (["one"], "plugins: .*found"),
        ({"one": 1}, r"plugins\.one: .*found 1"),
        ({"one": None}, r"plugins\.one: .*found None"),
        ({"one": {"version": "1"}}, r"plugins\.one: .*found"),
        ({"--index-url x": "1"}, "plugins: '--index-url x' is no distribution's name"),
        ({"../x": "1"}, r"plugins: '\.\./x' is no distribution's name"),
        ({"one": "\x1b[31m"}, r"plugins\.one: '\\x1b\[31m' is no version"),
        ({"one": "1; rm"}, r"plugins\.one: '1; rm' is no version"),
    ],
    ids=str,
)
def test_what_a_spec_says_of_plugins_is_checked_as_strictly_as_the_rest(given: object, message: str) -> None:
    with pytest.raises(llamazoo.SpecError, match=message):
        llamazoo.load_spec({**llamazoo.load_spec("llama-tiny").canonical(), "plugins": given})


def test_what_a_spec_says_of_plugins_that_it_does_not_use_is_forgotten() -> None:
    spec = llamazoo.load_spec({**llamazoo.load_spec("llama-tiny").canonical(), "plugins": {"nobody": "1.0"}})
    assert spec.plugins == {}
    assert spec == llamazoo.load_spec("llama-tiny")


def test_a_spec_may_be_copied_and_pickled() -> None:
    spec = llamazoo.load_spec("llama-tiny", SMALL)
    for twin in (copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec)), spec.model_copy()):
        assert (twin, hash(twin), twin.source) == (spec, hash(spec), spec.source)
        assert twin.layer(1).norm.type == "rmsnorm"


@pytest.mark.parametrize("change", [{"head.tied": True}, {"position": "t5"}, {"position": "learned"}], ids=str)
def test_a_copied_or_pickled_model_computes_the_same_and_shares_nothing_with_the_first(change: dict[str, Any]) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={**SMALL, **change})
    tokens = torch.randint(0, 40, (2, 9))
    expected = model(tokens)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(tokens), expected)
        assert len(list(twin.parameters())) == len(list(model.parameters()))
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert torch.equal(model(tokens), expected)
        assert not torch.equal(twin(tokens), expected)


def test_a_part_made_in_code_may_be_copied_and_not_pickled() -> None:
    registry = llamazoo.default_registry().extended(Plain)
    model = llamazoo.build_model("llama-tiny", overrides={**SMALL, "norm": "plain"}, registry=registry)
    tokens = torch.randint(0, 40, (2, 9))
    assert torch.equal(copy.deepcopy(model)(tokens), model(tokens))
    with pytest.raises(llamazoo.PluginError, match="the norm 'plain' was made in code, and exists in this process only"):
        pickle.dumps(model)
