"""What the figures of effects and of costs show: every point by name, every interval whole, nothing far apart that is equal."""

import pytest
from made_results import effect, made_results, made_timings

from llamazoo.ablation.report.charts import charts
from llamazoo.ablation.report.marks import Chart, Dots, Label, Panel
from llamazoo.ablation.results import Results


def drawn(results: Results, key: str) -> Chart:
    return next(chart for chart in charts(results, made_timings(results)) if chart.key == key)


def panels(chart: Chart) -> list[Panel]:
    return [panel for row in chart.rows for panel in row.panels if not panel.bare]


# Effects of factors


@pytest.mark.parametrize("long", [False, True])
def test_both_changes_of_an_interaction_are_named_in_the_figure(long: bool) -> None:
    factors = ("feed_forward.activation.of.all", "attention.position") if long else ("feed_forward", "position")
    results = made_results(["gelu"], effects=[effect(factors, ("maxout", "alibi"), 0.002)])
    chart = drawn(results, "effects")
    ((_, name),) = panels(chart)[0].y.ticks
    assert name.replace("\n", " ") == f"{factors[0]}=maxout × {factors[1]}=alibi"
    assert ("\n" in name) is long


def test_the_intervals_of_effects_are_drawn_whole_unless_one_dwarfs_the_others() -> None:
    wide = [effect((f"f{i}",), ("a",), 0.01).model_copy(update={"low": -end, "high": end}) for i, end in enumerate((0.13, 0.06, 0.04))]
    panel = panels(drawn(made_results(["gelu"], effects=wide), "effects"))[0]
    assert panel.x.low < -0.13 < 0.13 < panel.x.high
    assert not [mark for mark in panel.marks if isinstance(mark, Dots) and mark.size == 7]
    wide[0] = wide[0].model_copy(update={"low": -5.0, "high": 5.0})
    panel = panels(drawn(made_results(["gelu"], effects=wide), "effects"))[0]
    assert panel.x.high < 1
    assert [mark.marker for mark in panel.marks if isinstance(mark, Dots) and mark.size == 7] == ["triangle-left", "triangle-right"]


# What quality costs


def test_up_to_six_variants_are_named_in_every_panel_even_where_they_coincide() -> None:
    names = ["swiglu_alibi", "maxout_rope", "maxout_alibi", "gelu", "relu2"]
    results = made_results(names)
    alike = results.variants[0].costs
    results = results.model_copy(update={"variants": [v.model_copy(update={"costs": alike}) for v in results.variants]})
    chart = drawn(results, "cost-quality")
    assert len(panels(chart)) >= 4
    for panel in panels(chart):
        assert sorted(mark.text for mark in panel.marks if isinstance(mark, Label)) == sorted(["base", *names]), panel.x.title
    assert chart.rows[0].panels[0].bare, "the key stands above the panels"


def test_of_more_variants_the_caption_says_where_the_names_are() -> None:
    chart = drawn(made_results([f"v{i}" for i in range(9)]), "cost-quality")
    assert "the key above the panels has everyone" in chart.caption
    assert {mark.text for mark in chart.rows[0].panels[0].marks if isinstance(mark, Label)} == {"base", *(f"v{i}" for i in range(9))}


def test_values_that_are_as_good_as_equal_are_not_drawn_far_apart() -> None:
    panel = panels(drawn(made_results(["gelu", "relu2"]), "cost-quality"))[0]
    counts = [v.costs.parameters for v in made_results(["gelu", "relu2"]).variants]
    assert 0 < max(counts) - min(counts) < 0.01 * max(counts)
    assert panel.x.title.startswith("parameters (equal within 0.")
    assert max(counts) - min(counts) < (panel.x.high - panel.x.low) / 10
    titles = [each.x.title for each in panels(drawn(made_results([]), "cost-quality"))]
    assert titles[0] == "parameters", "a model alone is not said to be equal to any"
    peak = panels(drawn(made_results(["gelu"], seeds=2), "cost-quality"))[-1]
    assert peak.x.title == "peak memory in training, bytes (equal)"
