"""Specs: composition, patterns, canonical form, and errors that say where and what would do."""

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import llamazoo
from llamazoo.errors import SpecError, UnknownComponentError
from llamazoo.spec.compose import parse_spec
from llamazoo.spec.patch import merge
from llamazoo.spec.yaml import read_yaml


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def tiny(**changes: Any) -> dict[str, Any]:
    return merge(llamazoo.load_spec("llama-tiny").canonical(), changes)


def test_a_spec_is_found_by_zoo_name_with_or_without_its_ending() -> None:
    assert llamazoo.load_spec("llama-7b") == llamazoo.load_spec("llama-7b.yaml")
    assert llamazoo.load_spec("llama-7b").source == "zoo/llama-7b.yaml"


def test_an_existing_file_wins_over_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "llama-7b.yaml", "extends: llama-tiny\ndim: 64\n")
    monkeypatch.chdir(tmp_path)
    spec = llamazoo.load_spec("llama-7b.yaml")
    assert spec.dim == 64
    assert spec.source == str(tmp_path / "llama-7b.yaml")


def test_a_folder_of_the_zoos_name_does_not_hide_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama-7b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert llamazoo.load_spec("llama-7b").dim == 4096


def test_shorthand_and_long_form_are_one_spec() -> None:
    assert llamazoo.load_spec(tiny(norm="layernorm")) == llamazoo.load_spec(tiny(norm={"type": "layernorm", "eps": 1e-5, "bias": True}))


def test_an_alias_stands_for_its_canonical_part() -> None:
    assert llamazoo.load_spec(tiny(feed_forward="swiglu")) == llamazoo.load_spec(tiny(feed_forward={"type": "gated", "activation": "silu"}))
    geglu = llamazoo.load_spec(tiny(feed_forward={"type": "geglu", "bias": True})).canonical()["feed_forward"]
    assert (geglu["type"], geglu["activation"]["type"], geglu["bias"]) == ("gated", "gelu", True)


def test_extends_merges_a_part_of_the_same_type_and_replaces_one_of_another(tmp_path: Path) -> None:
    base = "extends: llama-tiny\nnorm: {eps: 1e-3}\nattention: {window: 7}\n"
    written(tmp_path, "base.yaml", base)
    same = llamazoo.load_spec(written(tmp_path, "same.yaml", "extends: base.yaml\nattention: {softcap: 2}\n")).canonical()
    assert (same["norm"]["eps"], same["attention"]["window"], same["attention"]["softcap"]) == (1e-3, 7, 2.0)
    other = llamazoo.load_spec(written(tmp_path, "other.yaml", "extends: base.yaml\nnorm: layernorm\n")).canonical()
    assert other["norm"] == {"type": "layernorm", "eps": 1e-5, "bias": True}


def test_overrides_reach_inside_by_dots_and_merge_like_extends() -> None:
    spec = llamazoo.load_spec("llama-tiny", {"position.theta": 5e5, "norm": "layernorm", "norm.eps": 1e-3} | {"n_layers": 2} | {})
    assert spec.position.options.theta == 5e5
    assert spec.n_layers == 2
    assert spec.norm.options.eps == 1e-3


def test_an_override_of_a_spec_object_leaves_the_object_alone() -> None:
    spec = llamazoo.load_spec("llama-tiny")
    other = llamazoo.load_spec(spec, {"position": "alibi"})
    assert (spec.position.type, other.position.type) == ("rope", "alibi")


def test_a_pattern_says_which_layers_differ() -> None:
    spec = llamazoo.load_spec(
        tiny(
            n_layers=12,
            positions={"local": {"type": "rope", "theta": 1e4}, "global": {"type": "rope", "theta": 1e6}},
            position="local",
            attention={"window": 16},
            layers=[{"every": 6, "offset": 5, "position": "global", "attention": {"window": None}}, {"at": "0:2", "feed_forward": "mlp"}],
        )
    )
    windows = [spec.layer(i).attention.options.window for i in range(12)]
    assert windows == [16, 16, 16, 16, 16, None] * 2
    assert [spec.layer(i).position for i in (4, 5, 11)] == ["local", "global", "global"]
    assert [spec.layer(i).feed_forward.type for i in range(3)] == ["mlp", "mlp", "gated"]
    assert llamazoo.load_spec(spec.canonical()) == spec


PATTERN_FAULTS = [
    ([{"at": 4, "norm": "none"}], r"layers\.0\.at: 4 matches none, or not only, of the layers 0 to 3"),
    ([{"at": "2:9", "norm": "none"}], r"layers\.0\.at: '2:9' matches none, or not only"),
    ([{"every": 2, "offset": 9, "norm": "none"}], r"layers\.0\.every: every 2 from 9 matches none"),
    ([{"norm": "none"}], r"layers\.0: .*either `at`"),
    ([{"at": 0, "every": 2}], r"layers\.0: .*either `at`"),
    ([{"at": "x", "norm": "none"}], r"layers\.0\.at: 'x' is neither a layer"),
    ([{"at": 0, "position": "far"}], r"layers\.0\.position: no position named 'far'; .*name them in `positions`"),
    ([{"at": 0, "attention": {"windw": 3}}], r"layers\.0\.attention\.windw: no such field; did you mean 'window'"),
    ([{"at": 0, "atention": {}}], r"layers\.0\.atention: no such field"),
]


@pytest.mark.parametrize(("layers", "message"), PATTERN_FAULTS, ids=str)
def test_a_pattern_that_cannot_be_is_refused_with_its_place(layers: list[Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        llamazoo.load_spec(tiny(layers=layers))


def test_a_patch_that_no_longer_fits_says_that_it_was_inherited(tmp_path: Path) -> None:
    written(tmp_path, "base.yaml", "extends: llama-tiny\nlayers:\n  - {at: 0, feed_forward: {activation: relu}}\n")
    assert llamazoo.load_spec(tmp_path / "base.yaml").layer(0).feed_forward.options.activation.type == "relu"
    child = written(tmp_path, "child.yaml", "extends: base.yaml\nnorm: none\nlayers: []\n")
    assert llamazoo.load_spec(child).layers == []


FAULTS = [
    ({"dimm": 3}, r"dimm: no such field; did you mean 'dim'"),
    ({"norm": "layrnorm"}, r"norm: no norm named 'layrnorm'; did you mean 'layernorm'\? known: .*layernorm, none, rmsnorm"),
    ({"feed_forward": {"activation": "gulu"}}, r"feed_forward\.activation: no activation named 'gulu'; did you mean"),
    (
        {"feed_forward": {"activation": {"type": "gelu", "aproximate": "tanh"}}},
        r"activation\.aproximate: no such field; did you mean 'approximate'",
    ),
    ({"position": {"theta": -1}}, r"position\.theta: .*greater than 0, found -1"),
    ({"norm": 3}, r"norm: expected the name of a norm, or a map"),
    ({"norm": {"type": 3}}, r"norm: a map needs `type`"),
    ({"dtype": "float12"}, r"dtype: .*'float32'"),
    ({"eos_ids": [256]}, r"eos_ids: 256 is no token of a vocabulary of 256"),
    ({"version": 2}, r"version: found 2; this llamazoo reads version 1"),
    ({"positions": {"a-b": "rope"}, "position": "a-b"}, r"positions: 'a-b' cannot name a position"),
    ({"positions": {"a": "rope"}, "position": "b"}, r"position: no position of this spec is named 'b'"),
    ({"positions": {"a": "rope", "b": "alibi"}, "position": "a"}, r"positions\.b: no layer has this position"),
    ({"attention": {"kernel": "sdpa", "softcap": 3.0}}, r"attention\.kernel: sdpa cannot compute this attention: .* cannot cap scores"),
    ({"attention": {"n_kv_heads": 3}}, r"attention\.n_kv_heads: 3 key/value heads .* do not divide 4 heads .*use one of \[1, 2, 4\]"),
    ({"head_dim": 7}, r"position\.fraction: rotates 7 of the 7 features of a head \(head_dim\)"),
    ({"hidden_dim": None}, r"feed_forward\.hidden_dim: a feed-forward needs a width"),
    ({"position": {"type": "t5", "buckets": 7}}, r"position\.buckets: 7 buckets need to be even"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=str)
def test_an_error_names_the_field_and_what_would_do(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        llamazoo.load_spec(tiny(**change))


def test_an_unknown_part_is_its_own_kind_of_error() -> None:
    with pytest.raises(UnknownComponentError, match="no norm named 'nope'"):
        llamazoo.load_spec(tiny(norm="nope"))


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(SpecError, match=r"3 problems") as caught:
        llamazoo.load_spec(tiny(dimm=1, n_layers=0, norm="nope"))
    assert {str(p.path[0]) for p in caught.value.problems} == {"dimm", "n_layers", "norm"}


class Deaf(llamazoo.Attention):
    """A mixer that carries out nothing that a position asks for."""

    name = "deaf"


def test_a_position_that_the_attention_would_ignore_is_refused() -> None:
    registry = llamazoo.default_registry().extended(Deaf)
    with pytest.raises(SpecError, match=r"attention: the attention 'deaf' does not do what the position 'rope' asks \(rotate\)"):
        llamazoo.load_spec(tiny(attention="deaf"), registry=registry)
    assert llamazoo.load_spec(tiny(attention="deaf", position="learned"), registry=registry).attention.type == "local/deaf"


def test_numbers_are_read_as_people_mean_them() -> None:
    data = read_yaml("a: 1e-5\nb: 1.5E+3\nc: .5\nd: -7\ne: no\nf: 12:30\ng: null\nh: true\ni: '010'\nj: 0x1f\nk: 2_000_000\nl: 20_00\n")
    assert data == {
        "a": 1e-5,
        "b": 1500.0,
        "c": 0.5,
        "d": -7,
        "e": "no",
        "f": "12:30",
        "g": None,
        "h": True,
        "i": "010",
        "j": "0x1f",
        "k": 2_000_000,
        "l": "20_00",
    }


def test_every_option_of_every_part_changes_the_model_or_is_refused() -> None:
    """Declared means executed: an option that has no effect would be a lie."""
    changes = {
        "attention.window": 3,
        "attention.softcap": 0.01,
        "attention.scale": 3.0,
        "attention.qk_norm": "rmsnorm",
        "position.theta": 3.0,
        "position.layout": "interleaved",
        "position.fraction": 0.5,
        "norm.eps": 0.5,
        "embedding.scale": 3.0,
        "head.softcap": 0.1,
        "head.scale": 3.0,
        "head.tied": True,
        "final_norm": "none",
        "feed_forward.activation": "relu",
        "block": "postnorm",
        "init.std": 0.5,
        "init.seed": 1,
    }
    import torch

    tokens = torch.arange(24)[None] * 3
    base = llamazoo.build_model("llama-tiny")(tokens)
    for path, value in changes.items():
        assert not torch.equal(llamazoo.build_model("llama-tiny", overrides={path: value})(tokens), base), path


def test_a_position_of_the_embedding_cannot_belong_to_some_layers_only() -> None:
    names = {"a": "learned", "b": "none"}
    with pytest.raises(SpecError, match=r"positions\.a: learned acts on the embedding, before any layer"):
        llamazoo.load_spec(tiny(positions=names, position="a", layers=[{"at": 1, "position": "b"}]))
    assert llamazoo.load_spec(tiny(positions={"a": "learned"}, position="a")).places()["a"].type == "learned"


def test_a_pattern_over_too_many_layers_or_with_too_many_entries_is_refused() -> None:
    with pytest.raises(SpecError, match=r"10001 layers .n_layers. are too many to differ"):
        llamazoo.load_spec(tiny(n_layers=10_001, layers=[{"at": "1:", "feed_forward": {"hidden_dim": 2**24}}]))
    with pytest.raises(SpecError, match=r"layers: .*at most 256"):
        llamazoo.load_spec(tiny(layers=[{"at": 0, "norm": "none"}] * 257))


@pytest.mark.parametrize("at", [" 1 ", "1_0", "\u0663", "1:2:3", "+1", "", "0x1", 1.0, True])
def test_where_layers_are_is_said_plainly(at: object) -> None:
    with pytest.raises(SpecError, match=r"layers\.0"):
        llamazoo.load_spec(tiny(layers=[{"at": at, "norm": "none"}]))


@pytest.mark.parametrize("entry", [{"at": 0}, {"at": 0, "norm": None}, {"every": 1, "position": None}], ids=str)
def test_an_entry_that_changes_nothing_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"layers\.0: .*changes nothing"):
        llamazoo.load_spec(tiny(layers=[entry]))


def test_naming_an_alias_merges_into_the_part_that_it_stands_for() -> None:
    base = tiny(feed_forward={"type": "swiglu", "hidden_dim": 64, "bias": True})
    changed = llamazoo.load_spec(llamazoo.load_spec(base), {"feed_forward": {"type": "swiglu", "bias": False}})
    assert (changed.feed_forward.options.hidden_dim, changed.feed_forward.options.bias) == (64, False)
    geglu = llamazoo.load_spec(llamazoo.load_spec(base), {"feed_forward": "geglu"}).feed_forward.options
    assert (geglu.activation.type, geglu.hidden_dim) == ("gelu", 64)


def test_the_order_of_dotted_overrides_does_not_matter() -> None:
    spec = llamazoo.load_spec("llama-tiny", {"norm.eps": 1e-3, "norm": "layernorm"})
    assert (spec.norm.type, spec.norm.options.eps) == ("layernorm", 1e-3)


def test_a_copy_with_an_update_is_checked_and_means_what_it_says() -> None:
    spec = llamazoo.load_spec("llama-tiny")
    spec.layer(0)
    other = spec.model_copy(update={"norm": "layernorm"})
    assert other.layer(0).norm.type == other.norm.type == "layernorm"
    with pytest.raises(SpecError, match="dim: 100 features do not divide among 3 heads"):
        spec.model_copy(update={"dim": 100, "n_heads": 3})


@pytest.mark.parametrize("wrong", [None, 3, ["llama-tiny"]])
def test_what_names_no_spec_is_refused(wrong: Any) -> None:
    with pytest.raises(SpecError, match="a spec is a zoo name, a file, a map"):
        llamazoo.load_spec(wrong)
    with pytest.raises(SpecError, match="overrides are a map"):
        llamazoo.load_spec("llama-tiny", ["norm=layernorm"])


def test_values_too_large_to_show_are_refused_all_the_same() -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    for value in ([10**5000], deep):
        with pytest.raises(SpecError, match=r"dim: .*found a list too large to show"):
            llamazoo.load_spec(tiny(dim=value))


def test_a_message_stays_readable_however_many_faults_there_are() -> None:
    with pytest.raises(SpecError, match=r"1000 problems(\n.*){50}\n  \.\.\. and 950 more") as caught:
        llamazoo.load_spec(tiny(**{f"field_{i}": i for i in range(1000)}))
    assert len(caught.value.problems) == 1000


class Gain(llamazoo.Norm):
    """A stranger's norm."""

    name = "gain"

    class Options(llamazoo.ComponentOptions):
        by: float = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.options.by


@pytest.mark.parametrize("change", [{"qk_norm": {"type": "gain"}}, {"qk_norm": "gain"}, {"qk_norm": {"type": "local/gain"}}])
def test_naming_a_strangers_part_again_keeps_its_options_wherever_it_stands(change: dict[str, Any]) -> None:
    registry = llamazoo.default_registry().extended(Gain)
    held = {"type": "multihead", "qk_norm": {"type": "gain", "by": 3.0}}
    spec = llamazoo.load_spec(tiny(attention=held), registry=registry)
    expected = {"type": "local/gain", "by": 3.0}
    assert llamazoo.load_spec(spec, {"attention": change}, registry=registry).canonical()["attention"]["qk_norm"] == expected
    patched = llamazoo.load_spec(tiny(attention=held, layers=[{"at": 0, "attention": change}]), registry=registry)
    assert patched.layer(0).attention.options.qk_norm.options.by == 3.0
    assert patched.canonical()["layers"] == [{"at": 0, "attention": {"qk_norm": {"type": "local/gain"}}}]
    assert llamazoo.load_spec(patched.canonical(), registry=registry) == patched


def test_a_layers_part_has_one_canonical_form() -> None:
    short, long = (llamazoo.load_spec(tiny(layers=[{"at": 0, "norm": norm}])) for norm in ("layernorm", {"type": "layernorm"}))
    assert short == long


def test_no_positions_may_be_written_as_null() -> None:
    assert llamazoo.load_spec(tiny(positions=None)) == llamazoo.load_spec(tiny())


def test_two_ways_to_write_a_pattern_of_layers_are_no_difference() -> None:
    base = tiny(n_layers=4)
    one = parse_spec({**base, "layers": [{"every": 2, "attention": {"window": 4}}]})
    other = parse_spec(
        {**base, "attention": {"type": "multihead", "window": 4}, "layers": [{"at": i, "attention": {"window": None}} for i in (1, 3)]}
    )
    assert llamazoo.differences(one, other) == []
    assert [str(d) for d in llamazoo.differences(one, parse_spec(base))] == ["layers 0, 2: attention.window: 4 would become None"]


def test_a_part_that_is_another_is_one_difference_whatever_its_options() -> None:
    found = llamazoo.differences(parse_spec(tiny()), parse_spec(tiny(norm={"type": "layernorm", "bias": False})))
    assert [(d.path, d.layers) for d in found] == [("final_norm.type", None), ("norm.type", None)]


def test_what_is_known_of_a_model_is_inherited_and_makes_no_difference(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("extends: llama-tiny\nabout: {licence: apache-2.0, released: 2024-02}\n")
    (tmp_path / "two.yaml").write_text("extends: one.yaml\nabout: {released: 2025-01}\n")
    two = llamazoo.load_spec(tmp_path / "two.yaml")
    assert two.canonical()["about"] == {"licence": "apache-2.0", "released": "2025-01"}
    assert llamazoo.differences(two, parse_spec(tiny())) == []
    with pytest.raises(SpecError, match=r"about\.released"):
        parse_spec(tiny(about={"released": "last week"}))


def test_an_option_that_would_do_nothing_or_that_the_kernel_cannot_do_is_refused() -> None:
    around = {"attention": {"type": "multihead", "qk_norm_over": "all"}}
    with pytest.raises(SpecError, match=r"attention\.qk_norm_over: says what qk_norm is taken over, and there is none"):
        llamazoo.load_spec("llama-tiny", around)
    with pytest.raises(SpecError, match=r"attention\.kernel: sdpa cannot compute this attention: .* no attention sinks"):
        llamazoo.load_spec("llama-tiny", {"attention": {"type": "multihead", "sinks": True, "kernel": "sdpa"}})
