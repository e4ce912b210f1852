"""Drawings of architectures: what they tell is so, it fits the page, and nothing in a name is taken for markup."""

import itertools
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import llamazoo
from llamazoo.cli.main import app
from llamazoo.contract.wiring import Residual, Wiring
from llamazoo.diagram.depict import layout
from llamazoo.diagram.runs import Group, Run, in_short
from llamazoo.diagram.scene import scene_of
from llamazoo.diagram.shapes import Box, Line, Sketch, Words
from llamazoo.diagram.words import short, shortened, width, wrapped
from llamazoo.spec.patch import merge
from llamazoo.testing import BASE

BLOCKS = [
    (o.component.name, options)
    for o in llamazoo.default_registry().offers()
    if o.component.kind == "block" and o.distribution == "llamazoo"
    for options in ({}, *({name: value} for name, value in {"shared_norm": True}.items() if name in o.component.Options.model_fields))
]
TWO_SORTS = {
    "n_layers": 26,
    "positions": {"local": "rope", "global": {"type": "rope", "theta": 1e6}},
    "position": "local",
    "block": "sandwich",
    "attention": {"type": "multihead", "window": 8, "softcap": 50.0, "qk_norm": "rmsnorm", "n_kv_heads": 1},
    "head": {"tied": True, "softcap": 30.0},
    "layers": [{"every": 6, "offset": 5, "position": "global", "attention": {"window": None}}],
}
HYBRID = {
    "n_layers": 24,
    "position": "learned",
    "layers": [
        {"at": "0:3", "feed_forward": {"type": "mlp", "hidden_dim": 100}},
        {"every": 6, "offset": 3, "block": "parallel"},
        {"at": 23, "block": "postnorm", "norm": "layernorm"},
    ],
}
SPECS: dict[str, Any] = {
    "llama-7b": "llama-7b",
    "smollm2-135m": "smollm2-135m",
    "two sorts": merge(BASE, TWO_SORTS),
    "hybrid": merge(BASE, HYBRID),
    "parallel": merge(BASE, {"block": {"type": "parallel", "shared_norm": True}, "position": "t5"}),
}


def drawn(spec: Any) -> Sketch:
    return layout(scene_of(llamazoo.load_spec(spec)))


def texts(spec: Any) -> list[str]:
    return [shape.text for shape in drawn(spec).shapes if isinstance(shape, Words)]


# What is told is so


def follow(block: llamazoo.Block, wiring: Wiring, x: Tensor, step: Any) -> Tensor:
    """What a wiring says that a block computes."""

    def through(names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            part = getattr(block, name)
            more = {"attention": (step, None), "feed_forward": (step,)}.get(part.kind, ())
            x = part(x, *more)
        return x

    for item in wiring:
        if isinstance(item, Residual):
            shared = through(item.shared, x)
            x = x + item.scale * sum(through(branch, shared) for branch in item.branches)
        else:
            x = through((item,), x)
    return x


@pytest.mark.parametrize(("name", "options"), BLOCKS, ids=str)
def test_a_block_computes_what_its_wiring_says(name: str, options: dict[str, Any]) -> None:
    model = llamazoo.build_model(merge(BASE, {"block": {"type": name, **options}, "n_layers": 1}), dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():  # so that no two norms are alike
            parameter.add_(torch.rand_like(parameter))
    (block,) = model.blocks
    assert isinstance(block, llamazoo.Block)
    wiring = block.wiring()
    assert wiring is not None
    step = llamazoo.Step.even(2, 5, start=0, horizon=8, device=torch.device("cpu"))
    at = {}
    for place, position in zip(model.place_names, model.positions.values(), strict=True):
        assert isinstance(position, llamazoo.Position)
        at[place] = position.prepare(step.positions, horizon=8, dtype=torch.float64)
    step = step.with_places(at)
    x = torch.randn(2, 5, model.spec.dim, dtype=torch.float64)
    assert torch.allclose(block(x, step, None), follow(block, wiring, x, step), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_the_parameters_that_are_drawn_add_up(name: str) -> None:
    spec = llamazoo.load_spec(SPECS[name])
    scene = scene_of(spec)
    counts = dict.fromkeys(range(len(scene.layers)), 0)
    for item in scene.stack:
        for run, times in [(item, 1)] if isinstance(item, Run) else [(run, item.times) for run in item.runs]:
            counts[run.sort] += run.count * times
    assert counts == {number: layer.count for number, layer in enumerate(scene.layers)}
    assert sum(counts.values()) == spec.n_layers
    assert scene.parameters == llamazoo.describe(spec).parameters
    for layer in scene.layers:
        assert layer.parameters == sum(part.parameters for part in layer.parts.values())


def test_what_attention_does_is_told() -> None:
    found = texts(SPECS["two sorts"])
    for told in (
        "4 heads of width 8",
        "1 key/value head",
        "window 8",
        "softcap 50",
        "qk norm rmsnorm",
        "position rope, theta 1e6",
    ):
        assert told in found
    assert found.count("window 8") == 1, "the global layers have none"
    assert "the embedding's table" in found
    assert "activation silu" in found


def test_a_pattern_of_layers_is_one_repeated_group() -> None:
    scene = scene_of(llamazoo.load_spec(SPECS["two sorts"]))
    assert [layer.label for layer in scene.layers] == ["local", "global"]
    assert scene.stack == (Group(4, (Run(0, 5), Run(1, 1))), Run(0, 2))
    found = texts(SPECS["two sorts"])
    assert {"local × 5", "global", "× 4", "local × 2"} <= set(found)


def test_sorts_are_named_by_what_sets_them_apart() -> None:
    scene = scene_of(llamazoo.load_spec(SPECS["hybrid"]))
    assert [layer.label for layer in scene.layers] == ["mlp, prenorm", "gated, parallel", "gated, prenorm", "gated, postnorm"]
    windows = merge(BASE, {"n_layers": 4, "layers": [{"every": 2, "attention": {"window": 4}}]})
    assert [layer.label for layer in scene_of(llamazoo.load_spec(windows)).layers] == ["window 4", "no window"]


def test_patches_that_come_to_the_same_make_no_second_sort() -> None:
    spec = merge(BASE, {"n_layers": 3, "layers": [{"at": 1, "norm": "layernorm"}, {"at": 1, "norm": BASE["norm"]}]})
    assert len(scene_of(llamazoo.load_spec(spec)).layers) == 1


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("a", ["a"]),
        ("aaaa", ["4a"]),
        ("aaabbbbb", ["3a", "5b"]),
        ("ababab", ["3(a b)"]),
        ("aaaaabaaaaabaa", ["2(5a b)", "2a"]),
        ("aaababab", ["2a", "3(a b)"]),
        ("abababbb", ["3(a b)", "2b"]),
        ("aabcabcabc", ["a", "3(a b c)"]),
        ("cababdd", ["c", "2(a b)", "2d"]),
        ("abcde", ["a", "b", "c", "d", "e"]),
    ],
)
def test_runs_and_repetitions_are_found(layers: str, expected: list[str]) -> None:
    runs = [Run(ord(sort) - ord("a"), len(list(equal))) for sort, equal in itertools.groupby(layers)]
    found = in_short(runs)

    def told(item: Run | Group) -> str:
        if isinstance(item, Group):
            return f"{item.times}({' '.join(told(run) for run in item.runs)})"
        return f"{item.count if item.count > 1 else ''}{chr(ord('a') + item.sort)}"

    assert [told(item) for item in found] == expected


def test_many_layers_are_drawn_at_once() -> None:
    assert "layer × 1,000,000,000" in texts(merge(BASE, {"n_layers": 10**9}))


# Strangers' parts


class Gated(llamazoo.Block):
    """x + attention(x) * feed_forward(x), whose code says more than a wiring could."""

    name = "gated_block"

    def __init__(self, options: Any, site: llamazoo.Site, layer: llamazoo.LayerSpec) -> None:
        super().__init__(options, site, layer)
        self.attention: llamazoo.Attention = site.build(layer.attention)
        self.feed_forward: llamazoo.FeedForward = site.build(layer.feed_forward)


class Scaled(Gated):
    """x + (attention(x)) / 4, and so with the feed-forward."""

    name = "scaled_block"

    def wiring(self) -> Wiring:
        return Residual(("attention",), scale=0.25), Residual(("feed_forward",), scale=0.25)


class Wrong(Gated):
    """A block that tells what it has not."""

    name = "wrong_block"

    def wiring(self) -> Wiring:
        return (Residual(("norm", "attention")),)


class Pair(llamazoo.FeedForward):
    """Two feed-forwards, chosen between."""

    name = "pair"

    class Options(llamazoo.ComponentOptions):
        first: llamazoo.FeedForwardPart = llamazoo.part("mlp")
        """One."""
        note: str = ""
        """Something to tell."""

    def __init__(self, options: Options, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.first: llamazoo.FeedForward = site.build(options.first)
        self.choose = torch.nn.Linear(site.dim, 2)


REGISTRY = llamazoo.default_registry().extended(Gated, Scaled, Wrong, Pair)


def stranger(**changes: Any) -> llamazoo.ArchitectureSpec:
    return llamazoo.load_spec(merge(BASE, changes), registry=REGISTRY)


def test_a_block_that_tells_no_wiring_is_drawn_with_its_parts() -> None:
    found = [shape.text for shape in layout(scene_of(stranger(block="gated_block"))).shapes if isinstance(shape, Words)]
    assert "how these are wired, the block does not tell" in found
    assert {"multihead attention", "gated feed-forward"} <= set(found)


def test_a_stranger_may_tell_its_wiring() -> None:
    found = [shape.text for shape in layout(scene_of(stranger(block="scaled_block"))).shapes if isinstance(shape, Words)]
    assert found.count("× 0.25") == 2


def test_a_wiring_of_parts_that_are_not_there_is_an_error() -> None:
    with pytest.raises(
        llamazoo.PluginError, match="'wrong_block' tells a wiring of attention, norm, and has the parts attention, feed_forward"
    ):
        llamazoo.depict(stranger(block="wrong_block"))


def test_parts_within_a_part_are_drawn_in_it() -> None:
    scene = scene_of(stranger(feed_forward={"type": "pair", "note": "seen"}))
    pair = scene.layers[0].parts["feed_forward"]
    assert pair.facts == ("first mlp", "note seen")
    assert [part.name for part in pair.inner] == ["mlp"]
    assert pair.parameters > pair.inner[0].parameters


# The page


EVERY = [*SPECS.values(), *({**BASE, "norm": "layernorm", "block": name, "position": "alibi"} for name, _ in BLOCKS)]


def apart(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def inside(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return other[0] <= one[0] and other[1] <= one[1] and one[2] <= other[2] and one[3] <= other[3]


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: str(spec)[:40])
def test_no_box_overlaps_another_and_every_text_fits(spec: Any) -> None:
    check_page(drawn(spec))


def check_page(sketch: Sketch) -> None:
    boxes = [shape for shape in sketch.shapes if isinstance(shape, Box)]
    for one, other in itertools.combinations(boxes, 2):
        assert apart(one.reach, other.reach) or inside(one.reach, other.reach) or inside(other.reach, one.reach), (one, other)
    words = [shape for shape in sketch.shapes if isinstance(shape, Words)]
    for one in words:
        for box in boxes:
            assert apart(one.reach, box.reach) or inside(one.reach, box.reach), (one, box)
    for one, other in itertools.combinations(words, 2):
        assert apart(one.reach, other.reach), (one, other)
    for line in (shape for shape in sketch.shapes if isinstance(shape, Line)):
        for (x1, y1), (x2, y2) in itertools.pairwise(line.points):
            if x1 == x2 or y1 == y2:  # an upright or level piece passes no part, and no text
                piece = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
                assert all(apart(piece, b.reach) or on_edge(piece, b.reach) for b in boxes if b.role == "part"), line
                assert all(apart(piece, word.reach) for word in words), line


def on_edge(piece: tuple[float, ...], box: tuple[float, ...]) -> bool:
    return piece[3] <= box[1] + 0.01 or piece[1] >= box[3] - 0.01


def test_a_page_with_inner_boxes_and_an_untold_block_keeps_order_too() -> None:
    for changes in ({"block": "gated_block"}, {"block": "scaled_block"}, {"feed_forward": {"type": "pair", "note": "x" * 300}}):
        check_page(layout(scene_of(stranger(**changes))))


def test_widths_are_no_less_than_those_of_a_wide_font() -> None:
    # Advance widths of DejaVu Sans at 1000 px, plain and bold, as a browser measures them; Helvetica and Arial are narrower.
    measured = {
        "multihead attention": (9932, 11288),
        "0123456789": (6363, 6959),
        "gated feed-forward": (9620, 10957),
        "WMwm@%": (5594, 6066),
        "ilj.,'|!": (2482, 2916),
        "position rope, theta 1e6": (12018, 13650),
        "4096 → 11008 → 4096": (11219, 12114),
    }
    for text, (plain, bold) in measured.items():
        assert plain <= width(text, 1000) <= 1.2 * plain
        assert bold <= width(text, 1000, bold=True) <= 1.25 * bold
    assert width("字", 10) >= 10
    assert width("bold", 10, bold=True) > width("bold", 10)


def test_long_words_are_cut_with_an_ellipsis() -> None:
    cut = shortened("a" * 1000, 11, 300)
    assert cut.endswith("a…")
    assert width(cut, 11) <= 300
    assert wrapped("aa bb cc", 10, width("aa bb", 10)) == ["aa bb", "cc"]
    lines = wrapped("word " * 100 + "a" * 900, 11, 200)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert all(width(line, 11) <= 200 for line in lines)
    assert shortened("two\nlines  here", 11, 300) == "two lines here"


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0K"),
        (999_999, "1.00M"),
        (134_515_008, "135M"),
        (6_738_415_616, "6.74B"),
        (10**16, "10000T"),
    ],
)
def test_parameters_are_told_in_short(count: int, told: str) -> None:
    assert short(count) == told


# The file


@pytest.mark.parametrize("name", SPECS)
def test_the_file_is_small_plain_and_the_same_each_time(name: str) -> None:
    spec = llamazoo.load_spec(SPECS[name])
    made = llamazoo.depict(spec)
    assert made == llamazoo.depict(llamazoo.load_spec(spec.canonical()), spec.source or "a model")
    root = ElementTree.fromstring(made)
    names = {element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in root.iter()}
    assert names <= {"svg", "title", "defs", "marker", "path", "rect", "text", "circle"}
    assert "http" not in made.replace("http://www.w3.org/2000/svg", "")
    assert len(made) < 50_000
    page = next(element for element in root if element.tag.endswith("rect"))
    assert page.get("fill") == "#ffffff"
    assert (page.get("width"), page.get("height")) == (root.get("width"), root.get("height"))


HOSTILE = "<script>alert('&')</script>]]>\x00\x1b[31m\u202e\ud800\"/>"


def test_markup_in_names_and_options_is_text() -> None:
    spec = stranger(feed_forward={"type": "pair", "note": HOSTILE})
    made = llamazoo.depict(spec, HOSTILE)
    root = ElementTree.fromstring(made)
    assert not any(element.tag.endswith("script") for element in root.iter())
    told = [element.text or "" for element in root.iter()]
    assert any(text.startswith("note") for text in told)
    assert "<script>alert('&')</script>" in " ".join(told)
    assert any(text.startswith("<script>alert") for text in told)
    assert not any(c in made for c in "\x00\x1b\u202e\ud800")
    assert made.encode()
    check_page(layout(scene_of(spec, HOSTILE)))


# The command


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def test_show_writes_the_diagram_beside_what_it_tells(tmp_path: Path) -> None:
    target = tmp_path / "out.svg"
    result = run("show", "llama-tiny", "--diagram", target)
    assert result.exit_code == 0, result.output
    assert "in all" in result.stdout
    assert target.read_text(encoding="utf-8") == llamazoo.depict(llamazoo.load_spec("llama-tiny"), "llama-tiny")


def test_a_diagram_for_stdout_is_all_that_is_printed() -> None:
    result = run("show", "llama-tiny", "--diagram", "-", "--set", "norm=layernorm")
    assert result.exit_code == 0, result.output
    ElementTree.fromstring(result.stdout)
    assert "layernorm" in result.stdout


def test_a_diagram_goes_into_no_file_of_another_kind(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("extends: llama-tiny\n")
    result = run("show", spec, "--diagram", spec)
    assert result.exit_code == 2
    assert "ends with .svg" in result.stderr
    assert spec.read_text() == "extends: llama-tiny\n"
