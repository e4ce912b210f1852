"""The report of an ablation: complete, equal for equal results, safe with any name, and drawn as it was told."""

import itertools
import json
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import plotly.graph_objects as go
import pytest
from made_results import made_results, made_timings
from markdown_it import MarkdownIt

from llamazoo.ablation.report.answer import design, warnings
from llamazoo.ablation.report.cast import LABEL, cast, evaluations
from llamazoo.ablation.report.charts import charts
from llamazoo.ablation.report.interactive import interactive
from llamazoo.ablation.report.markdown import markdown
from llamazoo.ablation.report.marks import Chart, Curve, Dots, Label, Panel, Patch, Rule
from llamazoo.ablation.report.page import page
from llamazoo.ablation.report.paper import png
from llamazoo.ablation.report.scale import apart, common, ticks
from llamazoo.ablation.report.schema import results_schema
from llamazoo.ablation.report.spelling import amount, fixed, p_value, rate, safe, signed, what
from llamazoo.ablation.report.tables import matching
from llamazoo.ablation.report.write import write_report
from llamazoo.ablation.results import Results, Run, Variant
from llamazoo.diagram.words import width
from llamazoo.errors import SaveError

DOCS = Path(__file__).parents[1] / "docs"
TWELVE = [
    *("layernorm", "learned", "gelu", "alibi", "none", "swiglu-with-a-name-that-is-long-enough-to-be-cut", "geglu", "relu2"),
    *("sandwich", "parallel", "postnorm", "linear-attention"),
]
HOSTILE = [
    "<script>document.body.setAttribute('data-error', 'ran')</script>",
    "</script><img src=x onerror=alert(1)>",
    '"><a href="javascript:alert(1)">x</a>',
    "](https://evil.example/x) **bold** | `code` <b>html</b>",
    r"$\alpha$ %{x} \frac{1}{0} {{ 7 * 7 }}",
    "n" * 200,
    "n" * 199 + "m",
    "\u202egnp.exe\u0007",
    "模型\N{GRINNING FACE}",
    "/srv/secret/of/mine/name.txt",
    "- 1. + = x",
]
MADE: dict[str, Results] = {
    "three": made_results(short=["learned"]),
    "twelve": made_results(TWELVE, lost=["gelu"], short=["learned"], probes=["recall", "copying"], factors=True),
    "alone": made_results([], seeds=1, noise=False, rates=[1e-3]),
    "few": made_results(["gelu"], seeds=1, noise=False),
    "hostile": made_results(HOSTILE, lost=HOSTILE[:1], probes=HOSTILE[:2], seeds=3, factors=True),
}


def drawn(name: str) -> dict[str, Chart]:
    results = MADE[name]
    return {chart.key: chart for chart in charts(results, made_timings(results))}


def panels(chart: Chart) -> list[Panel]:
    return [panel for row in chart.rows for panel in row.panels]


def words(panel: Panel) -> list[str]:
    return [mark.text for mark in panel.marks if isinstance(mark, Label)]


def html_of(name: str) -> str:
    results = MADE[name]
    return page(results, made_timings(results), list(drawn(name).values()))


# What is drawn


def test_a_report_has_the_figures_that_there_is_something_to_draw_for() -> None:
    always = ["differences", "loss-curves", "learning-rates", "cost-quality", "lengths"]
    assert list(drawn("three")) == always
    assert list(drawn("twelve")) == [always[0], "effects", *always[1:], "probes"]
    assert list(drawn("alone")) == ["loss-curves", "cost-quality", "lengths"]


def test_a_difference_is_filled_only_if_it_was_shown_and_stands_before_its_noise() -> None:
    panel = panels(drawn("twelve")["differences"])[0]
    means = [mark for mark in panel.marks if isinstance(mark, Dots) and mark.size == 9]
    found = [v.comparisons[0] for v in MADE["twelve"].variants[1:]]
    assert [mark.x[0] for mark in means] == [c.mean for c in found]
    assert [(mark.left[0], mark.right[0]) for mark in means] == [(c.low, c.high) for c in found]
    assert [not mark.hollow for mark in means] == [c.verdict in ("better", "worse") for c in found]
    assert [(p.x0, p.x1, p.y0, p.y1) for p in panel.marks if isinstance(p, Patch)] == [(-0.006, 0.006, -11.5, 0.5)]
    assert [rule.at for rule in panel.marks if isinstance(rule, Rule)] == [0.0]


def test_a_variant_that_was_not_compared_in_an_outcome_keeps_its_row() -> None:
    chart = drawn("three")["differences"]
    assert [words(panel)[1] for panel in panels(chart)] == [words(panels(chart)[0])[1], "not compared", "not compared"]


def test_an_interval_beyond_the_edge_ends_in_an_arrowhead() -> None:
    results = made_results(["gelu"])
    variant = results.variants[1]
    wide = variant.comparisons[0].model_copy(update={"low": -50.0, "high": 50.0})
    results = results.model_copy(
        update={"variants": [results.variants[0], variant.model_copy(update={"comparisons": [wide]})]},
    )
    (panel,) = panels(charts(results)[0])
    assert panel.x.high < 1
    heads = [(mark.marker, mark.x[0]) for mark in panel.marks if isinstance(mark, Dots) and mark.size == 7]
    assert heads == [("triangle-left", panel.x.low), ("triangle-right", panel.x.high)]


def test_a_run_that_diverged_is_drawn_named_and_counted() -> None:
    whole = panels(drawn("twelve")["loss-curves"])[0]
    crosses = [mark for mark in whole.marks if isinstance(mark, Dots) and mark.marker == "cross"]
    assert [tip for mark in crosses for tip in mark.tips] == [f"gelu, seed {s}\ndiverged at 1.00M tokens" for s in (0, 1)]
    assert all(whole.y.low < y < whole.y.high for mark in crosses for y in mark.y)
    (rates,) = [panel for panel in panels(drawn("twelve")["learning-rates"]) if panel.title == "gelu"]
    assert [mark.tips for mark in rates.marks if isinstance(mark, Dots) and mark.marker == "cross"] == [("gelu\n1e-2: diverged",)]
    assert "2 of 5 diverged" in words(panels(drawn("twelve")["probes"])[0])
    text = html_of("twelve")
    assert "gelu: 2 of 5 runs diverged (seed 0: the loss was not finite at step 123; seed 1: " in text
    assert text.count(">diverged</td>") == 2 * 3 + 2 * 2, "in every table of seeds"
    assert "(3 of 5)</td>" in text


def test_a_variant_all_of_whose_runs_diverged_is_still_there() -> None:
    results = made_results(["gelu", "relu2"], lost=["gelu"], seeds=3)
    only = results.variant("gelu")
    lost = only.model_copy(update={"runs": only.runs[:2], "comparisons": []})
    results = results.model_copy(update={"variants": [results.variants[0], lost, results.variants[2]]})
    found = {chart.key: chart for chart in charts(results)}
    assert sum(isinstance(m, Dots) and m.marker == "cross" for m in panels(found["loss-curves"])[0].marks) == 2
    assert found["cost-quality"].notes == ("Not drawn, since no run finished: gelu.",)
    assert "gelu" not in " ".join(found["lengths"].notes), "that it diverged does not mean that it cannot be built"
    assert "not compared" in words(panels(found["differences"])[0])


def test_a_chosen_rate_at_the_edge_is_a_warning_wherever_it_is_shown() -> None:
    chart = drawn("three")["learning-rates"]
    assert [panel.title for panel in panels(chart) if panel.warn] == ["learned (edge)"]
    assert "learned (1e-2)" in chart.notes[0]
    rings = [mark for panel in panels(chart) for mark in panel.marks if isinstance(mark, Dots) and mark.marker == "ring"]
    assert [10 ** mark.x[0] for mark in rings] == pytest.approx([variant.lr for variant in MADE["three"].variants])
    assert "1e-2 (edge)" in html_of("three")


def test_the_front_is_of_those_that_no_other_beats_in_both() -> None:
    results = MADE["twelve"]
    panel = panels(drawn("twelve")["cost-quality"])[2]
    losses = {v.name: sum(r.outcomes["loss"] or 0 for r in v.runs if r.outcomes.get("loss")) for v in results.variants}
    counts = {v.name: sum(1 for r in v.runs if r.outcomes.get("loss")) for v in results.variants}
    at = {v.name: (v.costs.flops_per_token, losses[v.name] / counts[v.name]) for v in results.variants}
    best = {n for n, (x, y) in at.items() if not any((a <= x and b <= y) and (a, b) != (x, y) for a, b in at.values())}
    assert len(best) > 1
    assert best <= set(words(panel)) <= best | {"base"}


def test_the_end_of_training_is_close_enough_to_see_differences_and_names_who_is_beyond() -> None:
    results = made_results(["near", "far"])
    far = results.variant("far")
    curves = [run.model_copy(update={"curve": [p.model_copy(update={"loss": p.loss + 1}) for p in run.curve]}) for run in far.runs]
    results = results.model_copy(update={"variants": [*results.variants[:2], far.model_copy(update={"runs": curves})]})
    close = panels(next(chart for chart in charts(results) if chart.key == "loss-curves"))[1]
    assert close.y.high - close.y.low < 0.2
    assert [text for text in words(close) if text.startswith("far") and text.endswith("↑")]


def test_lengths_that_a_variant_cannot_be_built_for_are_named() -> None:
    chart = drawn("three")["lengths"]
    reasons = "it cannot be built for that, or fails there, or the loss is not finite."
    assert chart.notes == (f"learned has no loss at 2× and 4× the trained length: {reasons}",)
    lines = {mark.style.colour: len(mark.x) for mark in panels(chart)[0].marks if isinstance(mark, Curve)}
    assert sorted(lines.values()) == [1, 3, 3, 3]


def test_the_base_is_grey_and_everyone_else_has_a_look_and_a_name_of_their_own() -> None:
    members = cast(made_results([f"{'v' * 150}{i}" for i in range(29)], seeds=1))
    assert [m.style.colour for m in members if m.is_base] == ["#222222"]
    assert len({(m.style.colour, m.style.marker) for m in members}) == len(members)
    assert len({m.label for m in members}) == len(members)


@pytest.mark.parametrize("wide", [640.0, 720.0, 1000.0])
@pytest.mark.parametrize("name", MADE)
def test_no_words_in_a_figure_cover_others_or_leave_it(name: str, wide: float) -> None:
    for chart in drawn(name).values():
        for frame in chart.frames(wide):
            found = list(boxes(frame))
            for text, box in found:
                assert box[0] >= 0, (chart.key, text)
                assert box[2] <= wide, (chart.key, text)
            for (one, a), (other, b) in itertools.combinations(found, 2):
                assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]), (chart.key, one, other)


def boxes(frame: object) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """Where the labels of a panel are, and what stands at its left."""
    panel = frame.panel
    for mark in panel.marks:
        if isinstance(mark, Label):
            at = frame.width if mark.x is None else (mark.x - panel.x.low) / (panel.x.high - panel.x.low) * frame.width
            x = frame.left + at + mark.shift[0]
            y = frame.top + frame.height * (panel.y.high - mark.y) / (panel.y.high - panel.y.low) - mark.shift[1]
            room = width(mark.text, LABEL, mark.bold) * 0.9  # a bound that is never reached by a whole line
            left = x - room if mark.anchor == "right" else x
            yield mark.text, (left, y - 5, left + room, y + 5)
    for at, text in panel.y.ticks:
        y = frame.top + frame.height * (panel.y.high - at) / (panel.y.high - panel.y.low)
        yield text, (frame.left - 6 - width(text, LABEL) * 0.9, y - 5, frame.left - 6, y + 5)
    if panel.title:
        yield panel.title, (frame.left, frame.top - 18, frame.left + width(panel.title, LABEL + 1, bold=True) * 0.9, frame.top - 6)


# How it is drawn


@pytest.mark.parametrize("name", MADE)
def test_plotly_knows_every_property_that_it_is_given(name: str) -> None:
    for chart in drawn(name).values():
        figure = interactive(chart)
        assert len(go.Figure(figure["data"], figure["layout"]).data) == len(figure["data"])


def test_every_number_of_a_figure_is_in_the_page_as_it_was_told() -> None:
    for chart in drawn("twelve").values():
        data = interactive(chart)["data"]
        told = [mark for panel in panels(chart) for mark in panel.marks if isinstance(mark, Curve | Dots)]
        points = [(trace["x"], trace["y"]) for trace in data]
        assert all((mark.x, mark.y) in points for mark in told)


def test_pictures_are_as_wide_as_a_page_and_as_high_as_told() -> None:
    chart = drawn("three")["differences"]
    picture = png(chart)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    across, down = struct.unpack(">II", picture[16:24])
    assert (across, down) == (1440, pytest.approx(2 * chart.height, abs=1))
    assert picture == png(chart)


def test_pictures_do_not_heed_the_settings_of_whoever_draws_them() -> None:
    import matplotlib

    chart = drawn("few")["differences"]
    plain = png(chart)
    with matplotlib.rc_context({"text.color": "red", "font.size": 30, "savefig.bbox": "tight", "axes.grid": True, "font.family": "serif"}):
        assert png(chart) == plain


# The page


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(html)
    return parser.found


@pytest.mark.parametrize("name", ["twelve", "hostile"])
def test_the_page_asks_for_nothing_outside_itself(name: str) -> None:
    html = html_of(name)
    found = elements(html)
    assert [tag for tag, _ in found if tag in ("script", "style", "link", "img", "iframe", "object", "embed", "base", "form")] == [
        "style", "script", "script", "script",
    ]  # fmt: skip
    links = [value for _, attrs in found for key, value in attrs.items() if key in ("src", "href", "action", "data")]
    assert links
    assert all(value is not None and value.startswith("#") for value in links)
    assert not any(key.startswith("on") for _, attrs in found for key in attrs)
    (policy,) = [attrs["content"] for tag, attrs in found if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert html.count("plotly.js v") == 1


def test_the_page_tells_all_there_is_to_know() -> None:
    html = html_of("twelve")
    results = MADE["twelve"]
    assert "<code>llamazoo ablate experiment.yaml</code>" in html
    for variant in results.variants:
        for text in (variant.name, *(c.sentence for c in variant.comparisons)):
            assert text in html
    headings = ("What each variant changes", "How sizes were matched", "Every learning rate", "Costs", "Every seed", "Data", "Environment")
    for heading in headings:
        assert f"<h2>{heading}" in html
    for text in ("norm.type", "hidden_dim = 768", "12345678", "2.13.0", "base: llama-tiny", "base again (noise)", "kernel", "123M"):
        assert text in html
    assert "of 12 variants: " in html
    for effect in results.effects:
        assert f">{' × '.join(effect.against)}</td>" in html


def test_the_page_of_one_model_and_no_noise_says_what_it_cannot_say() -> None:
    assert "There is nothing to compare." in html_of("alone")
    few = html_of("few")
    for caution in ("without noise runs it is not known", "with fewer than 3 seeds"):
        assert caution in few
        assert caution in html_of("alone")
        assert caution not in html_of("three")
    assert "one learning rate for all (0.001)" in html_of("alone")
    assert "one learning rate for all" not in few
    assert "1 with too few seeds to tell" in few


def test_a_run_that_ended_worse_than_guessing_and_a_size_that_is_off_are_warned_of() -> None:
    made = made_results(["gelu"])
    base, gelu = made.variants
    blown = gelu.runs[2].model_copy(update={"outcomes": {"loss": 5.61}})
    matched = gelu.matched.model_copy(update={"what": "none", "off": 0.031})
    update = {"runs": [*gelu.runs[:2], blown, *gelu.runs[3:]], "matched": matched, "spec": {**gelu.spec, "vocab_size": 256}}
    told = list(warnings(made.model_copy(update={"variants": [base, gelu.model_copy(update=update)]})))
    assert "gelu: 1 of 5 runs ended worse than guessing (seed 2: 5.61), so it is unstable, or was hardly trained" in told
    assert "sizes are not matched: gelu +3.1%" in told
    assert not {line for line in warnings(made) if "guessing" in line or "matched" in line}


def test_a_loss_that_is_measured_on_few_documents_is_warned_of() -> None:
    (told,) = (line for line in warnings(made_results(["gelu"], data={"evaluated documents": 5})) if "document" in line)
    assert told.startswith("the loss is measured on 5 held-out documents")
    assert not [line for line in warnings(made_results(["gelu"], data={"evaluated documents": 26})) if "document" in line]


def test_seeds_that_learned_a_task_beside_some_that_did_not_are_warned_of() -> None:
    shares = {"base": [0.99, 1.0, 0.98, 1.0, 0.99], "gelu": [0.99, 0.3, 0.99, 1.0, 0.28]}
    made = made_results(["gelu"], probes=["recall"], outcomes=["loss", "accuracy:recall"])
    variants = []
    for variant in made.variants:
        runs = [run.model_copy(update={"outcomes": {"accuracy:recall": shares[variant.name][run.seed]}}) for run in probe_runs(variant)]
        compared = [c.model_copy(update={"outcome": "accuracy:recall"}) for c in variant.comparisons[:1]]
        update = {"runs": [*evaluations(variant), *runs], "comparisons": [*variant.comparisons, *compared]}
        variants.append(variant.model_copy(update=update))
    (told,) = (line for line in warnings(made.model_copy(update={"variants": variants})) if "learned the task" in line)
    assert told.startswith(
        "accuracy in recall: some seeds learned the task and others did not, gelu in 3 of 5 seeds (0.3 or less in the others); means"
    )
    assert not [line for line in warnings(made) if "learned the task" in line]


def probe_runs(variant: Variant) -> list[Run]:
    return [run for run in variant.runs if run.role == "probe"]


def test_the_design_says_how_many_runs_each_noise_floor_rests_on() -> None:
    made = made_results(["gelu"], seeds=3)
    assert made.noise is not None
    assert "; noise floor from 3 more runs of the base" in design(made)
    of_probe = [run.model_copy(update={"probe": "recall"}) for run in made.noise.runs]
    both = made.model_copy(update={"noise": made.noise.model_copy(update={"runs": [*made.noise.runs, *of_probe]})})
    assert design(both).endswith("noise floors from 3 more runs of the base each, on the data and on each probe apart")
    assert design(made_results(["gelu"], seeds=1)).endswith("noise floor from 1 more run of the base")
    assert design(made_results(["gelu"], noise=False)).endswith("noise floor not measured")


def test_parameters_for_longer_texts_only_stand_beside_the_sizes_where_there_are_some() -> None:
    made = made_results(["gelu", "learned"])
    plain = matching(made)
    assert plain.head[-1] == "off by"
    *others, learned = made.variants
    longer = learned.model_copy(update={"matched": learned.matched.model_copy(update={"beyond": 24_576})})
    told = matching(made.model_copy(update={"variants": [*others, longer]}))
    assert told.head[-1] == "besides, for longer texts only"
    assert [row[-1].text for row in told.rows] == ["0", "0", "24,576"]


def test_a_figure_of_an_earlier_report_does_not_stay(tmp_path: Path) -> None:
    write_report(made_results(["gelu"]), None, tmp_path)
    (tmp_path / "figures" / "mine.png").write_bytes(b"")
    alone = made_results(["gelu"], rates=[1e-3])
    written = write_report(alone, None, tmp_path)
    there = sorted((tmp_path / "figures").iterdir())
    assert there == sorted([*(path for path in written if path.parent.name == "figures"), tmp_path / "figures" / "mine.png"])
    assert "learning-rates.png" not in {path.name for path in there}


def test_equal_results_give_equal_files_that_tell_neither_where_nor_when(tmp_path: Path) -> None:
    results = made_results(
        ["gelu"],
        environment={"python": "/opt/tools/of/mine/python"},
        experiment={"base": "/srv/models/base.yaml", "data": {"files": ["/srv/corpus/*.txt"]}},
    )
    one = write_report(results, made_timings(results), tmp_path / "one")
    again = write_report(Results.model_validate_json(results.model_dump_json()), made_timings(results), tmp_path / "two" / "deeper")
    assert [path.relative_to(tmp_path / "one") for path in one] == [path.relative_to(tmp_path / "two" / "deeper") for path in again]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in again]
    assert [path.name for path in sorted((tmp_path / "one").iterdir())] == ["figures", "report.html", "report.md"], "no drafts"
    text = "".join(path.read_text() for path in one if path.suffix != ".png")
    assert "/srv/" not in text
    assert "/opt/" not in text
    assert str(tmp_path) not in text
    assert "…/*.txt" in text


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SaveError, match=r"report\.html: the report could not be written: .*; what was there is untouched"):
        write_report(MADE["few"], None, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
QUIET = ("quic", "background-networking", "component-update", "sync", "gpu")
FLAGS = [
    *("--headless", "--no-sandbox", "--no-first-run", "--enable-logging=stderr", "--v=0", *(f"--disable-{what}" for what in QUIET)),
    *("--virtual-time-budget=20000", "--window-size=1000,900", "--dump-dom"),
]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_browser_draws_every_figure_and_complains_of_nothing(tmp_path: Path) -> None:
    name = "hostile"
    path = tmp_path / "report.html"
    path.write_text(html_of(name))
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = elements(done.stdout)
    (body,) = [attrs for tag, attrs in found if tag == "body"]
    assert body == {"data-drawn": str(len(drawn(name)))}
    assert [tag for tag, _ in found if tag in ("img", "b", "iframe")] == []
    traces = [attrs for tag, attrs in found if tag == "g" and re.match(r"trace scatter\b", attrs.get("class") or "")]
    told = sum(len(interactive(chart)["data"]) for chart in drawn(name).values())
    empty = sum(not trace["x"] for chart in drawn(name).values() for trace in interactive(chart)["data"])
    assert len(traces) == told - empty


# Tables for papers


@pytest.mark.parametrize("name", MADE)
def test_names_are_nothing_but_text_in_markdown(name: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown(MADE[name], list(drawn(name).values())))
    inline = [child.type for token in tokens for child in token.children or ()]
    assert set(inline) <= {"text", "strong_open", "strong_close", "text_special", "image"}
    assert not [token for token in tokens if token.type in ("html_block", "fence", "code_block")]
    rows = [token for token in tokens if token.type == "tr_open"]
    outcomes = len({c.outcome for v in MADE[name].variants for c in v.comparisons}) or len(MADE[name].outcomes)
    assert len(rows) == outcomes * (1 + len(MADE[name].variants)) + (1 + len(MADE[name].effects)) * bool(MADE[name].effects)
    cells = sum(token.type in ("td_open", "th_open") for token in tokens)
    assert cells == outcomes * 8 * (1 + len(MADE[name].variants)) + 7 * (1 + len(MADE[name].effects)) * bool(MADE[name].effects)


def test_the_table_for_papers_has_the_verdicts_and_says_how_it_was_made() -> None:
    text = markdown(MADE["three"])
    found = MADE["three"].variants[1].comparisons[0]
    assert f"| {signed(found.mean, 4)} | {signed(found.low, 4)} to {signed(found.high, 4)} | 0.012 | 0.0060 | {found.verdict} |" in text
    assert "corrected by Holm" in text
    assert text.endswith("apart from the runs that are compared.\n")


# The schema


def test_the_published_schema_is_current_and_fits() -> None:
    published = (DOCS / "results.schema.json").read_text()
    current = json.dumps(results_schema(), indent=1, ensure_ascii=False) + "\n"
    how = "import json; from llamazoo.ablation.report.schema import results_schema as s; "
    how += "print(json.dumps(s(), indent=1, ensure_ascii=False))"
    assert published == current, f"docs/results.schema.json is not what the code says; run: python -c '{how}' > docs/results.schema.json"
    validator = jsonschema.Draft202012Validator(json.loads(published))
    validator.check_schema(validator.schema)
    for results in MADE.values():
        assert not list(validator.iter_errors(json.loads(results.model_dump_json())))
    wrong = json.loads(MADE["few"].model_dump_json()) | {"vesrion": 1}
    assert [error.message for error in validator.iter_errors(wrong)]


# Numbers and words


def test_numbers_are_spelt_as_in_papers() -> None:
    assert (fixed(-0.00125, 4), signed(0.5, 2), fixed(None, 3)) == ("−0.0013", "+0.50", "–")
    assert (p_value(0.0004), p_value(0.04), p_value(None)) == ("< 0.001", "0.040", "–")
    assert (rate(3e-4), rate(0.0025), rate(0.5), rate(1.0)) == ("3e-4", "2.5e-3", "0.5", "1")
    assert [amount(x) for x in (0, 512, 3020, 999_999, 45_100_000, 2e13)] == ["0", "512", "3.02k", "1.00M", "45.1M", "20.0T"]
    assert (what("loss@4x"), what("accuracy:recall")) == ("Loss at 4 times the trained length", "Accuracy in recall")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/corpus/a.txt", "…/a.txt"),
        ("in '/srv/corpus/a.txt', line 3", "in '…/a.txt', line 3"),
        ("path:/srv/corpus/a.txt", "path:…/a.txt"),
        ("~/corpus/*.txt", "…/*.txt"),
        (r"C:\corpus\of\mine\a.txt", "…/a.txt"),
        ("file:///srv/corpus/a.txt", "…/a.txt"),
        ("https://host.example/corpus/a.txt", "https://host.example/corpus/a.txt"),
        ("corpus/a.txt, 1/2 tokens/s", "corpus/a.txt, 1/2 tokens/s"),
        (r"\alpha\beta\gamma", r"\alpha\beta\gamma"),
        ("a\x00b\u202ec\nd", "a\\x00b\\u202ec\nd"),
    ],
)
def test_text_tells_no_folders_of_a_machine_and_hides_nothing(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_ticks_are_round_and_within_the_ends() -> None:
    assert ticks(0, 2_040_000, 4) == ((0, "0"), (1_000_000, "1M"), (2_000_000, "2M"))
    assert [told for _, told in ticks(3_005_000, 3_021_000, 4)] == ["3.005M", "3.010M", "3.015M", "3.020M"]
    assert ticks(-0.05, 0.06, 5) == ((-0.05, "−0.05"), (0, "0"), (0.05, "0.05"))
    assert all(-1 <= at <= 1 for at, _ in ticks(-1, 1))


def test_labels_keep_their_order_and_their_distance() -> None:
    wanted = [0.1, 0.11, 0.5, 0.52, 0.51, 0.99, 1.0]
    placed = apart(wanted, 0.1, 0, 1)
    order = sorted(range(7), key=wanted.__getitem__)
    assert sorted(range(7), key=placed.__getitem__) == order
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(placed[i] for i in order))
    assert min(placed) >= 0
    assert max(placed) <= 1
    assert apart([0.2, 0.8], 0.1, 0, 1) == [0.2, 0.8]


def test_only_a_real_gap_puts_a_value_beyond_the_others() -> None:
    assert common([2.0, 2.1, 2.2, 2.3]) == 2.3
    assert common([2.0, 2.1, 2.2, 3.3]) == 2.2
    assert common([2.0, 3.3], least=1.5) == 3.3
    assert common([2.0]) == 2.0
