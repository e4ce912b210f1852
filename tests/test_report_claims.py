"""What a report claims: no more than its results bear out, and nothing that a reader would have to look up elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import made_results, made_timings, probed, run
from markdown_it import MarkdownIt
from test_ablation import EXPERIMENT, SHORT
from typer.testing import CliRunner

import llamazoo
from llamazoo.ablation import run as run_experiment
from llamazoo.ablation.environment import parts_of, plugins_of
from llamazoo.ablation.experiment import read_experiment
from llamazoo.ablation.guessing import guessing
from llamazoo.ablation.prepare import opened
from llamazoo.ablation.report.answer import answer, warnings
from llamazoo.ablation.report.charts import charts
from llamazoo.ablation.report.footnote import footnote
from llamazoo.ablation.report.markdown import escaped, markdown
from llamazoo.ablation.report.marks import Rule
from llamazoo.ablation.report.page import page
from llamazoo.ablation.report.tables import learning_rates, seeds
from llamazoo.ablation.results import Guessing, Noise, PartsFile, Results
from llamazoo.cli.main import app
from llamazoo.data.example import IGNORED

RECALL = {"source": "associative_recall", "n_pairs": 2, "n_queries": 2, "vocab_size": 16, "validation_examples": 8}


def html_of(results: Results) -> str:
    return page(results, made_timings(results), charts(results, made_timings(results)))


# Every seed


def test_the_noise_rows_are_of_the_runs_on_what_the_table_is_about() -> None:
    again = [run("base", seed, 2.1, "noise") for seed in range(3)]
    on_probe = [each.model_copy(update={"role": "noise"}) for each in probed("base", "recall", 0.5, 3, lost=False)]
    noise = Noise(runs=[run for pair in zip(again, on_probe, strict=True) for run in pair], differences={}, floor={})
    results = made_results(["gelu"], seeds=3, probes=["recall"]).model_copy(update={"noise": noise})
    found = {table.title: [cell.text for cell in table.rows[-1]] for table in seeds(results)}
    assert found["Loss"] == ["base again (noise)", *(f"{each.outcomes['loss']:.4f}" for each in again)]
    assert found["Loss at 4 times the trained length"][1:] == [f"{each.outcomes['loss@4x']:.4f}" for each in again]
    assert found["Accuracy in recall"][1:] == [f"{each.outcomes['accuracy:recall']:.3f}" for each in on_probe]
    assert "no finite loss" not in html_of(results)


def test_a_noise_run_on_a_probe_that_diverged_is_told_with_its_probe() -> None:
    lost, *_ = (each.model_copy(update={"role": "noise"}) for each in probed("base", "recall", 0.5, 3, lost=True))
    noise = Noise(runs=[lost], differences={}, floor={})
    results = made_results(["gelu"], probes=["recall"]).model_copy(update={"noise": noise})
    assert any(told.startswith("noise: the base's second run of seed 0 on recall diverged: ") for told in warnings(results))


# Learning rates


def test_of_one_learning_rate_nothing_is_said_to_be_chosen_and_no_table_of_trials_is_shown() -> None:
    results = made_results(["gelu"], rates=[1e-2])
    assert learning_rates(results) is None
    told = "There was one learning rate, 1e-2: none was chosen, and there were no trials."
    for text in (html_of(results), markdown(results), footnote(results)):
        assert told in text
        assert "other seeds" not in text
    assert "Every learning rate that was tried" not in html_of(results)
    assert "learning-rates" not in {chart.key for chart in charts(results)}


def test_of_several_learning_rates_each_seed_is_said_to_choose_for_itself() -> None:
    results = made_results(["gelu"])
    html = html_of(results)
    assert "Final validation loss of each seed's trial" in html
    assert "took the learning rate that was best in its own trials, apart from the runs that are compared." in html
    assert "tuning seed" not in html
    assert "other seeds" not in html


def test_a_learning_rate_of_the_probes_own_is_told() -> None:
    experiment = {"base": "llama-tiny", "probes": {"recall": {}}, "probe_train": {"lr": 0.003}}
    assert footnote(made_results(["gelu"], rates=[1e-2], experiment=experiment)).endswith("no trials. On probes it was 3e-3.")


# What nobody learned


def recalled(*shares: float, most: float = 0.3) -> Results:
    """A base and variants with these accuracies in recall, where guessing comes to 0.25, and by luck to no more than `most`."""
    results = made_results([f"v{i}" for i in range(1, len(shares))], seeds=2, probes=["recall"], outcomes=["loss", "accuracy:recall"])
    variants = []
    for variant, share in zip(results.variants, shares, strict=True):
        runs = [r.model_copy(update={"outcomes": {"accuracy:recall": share}}) if r.probe else r for r in variant.runs]
        like = variant.comparisons[:1]
        facts = {"outcome": "accuracy:recall", "better": "higher", "verdict": "no difference shown"}
        compared = [*like, *(c.model_copy(update=facts) for c in like)]
        variants.append(variant.model_copy(update={"runs": runs, "comparisons": compared}))
    guess = {"accuracy:recall": Guessing(chance=0.25, answers=1000, most=most)}
    return results.model_copy(update={"variants": variants, "guessing": guess})


TOLD = "accuracy in recall: base and v1 are not above chance (0.25), so it does not tell them apart: "


@pytest.mark.parametrize(("shares", "told"), [((0.26, 0.29), True), ((0.26, 0.31), False), ((0.9, 0.26), False), ((0.9, 0.8), False)])
def test_what_neither_learned_is_a_warning_wherever_verdicts_are_read(shares: tuple[float, float], told: bool) -> None:
    results = recalled(*shares)
    assert any(warning.startswith(TOLD) for warning in warnings(results)) is told
    assert (TOLD in html_of(results), TOLD in markdown(results)) == (told, told)
    assert ("; neither it nor the base is above chance." in answer(results)) is told


def test_the_answer_names_every_outcome_that_was_declared() -> None:
    found = answer(recalled(0.9, 0.91, 0.2))
    assert found.startswith("In loss, of 2 variants: ")
    assert found.endswith(" In accuracy in recall, of 2 variants: 2 without a difference shown.")


def test_of_several_variants_only_those_that_learned_nothing_are_named() -> None:
    results = recalled(0.26, 0.9, 0.27, 0.28)
    assert [told for told in warnings(results) if told.startswith("accuracy in recall: base, v2 and v3 are not above chance (0.25)")]
    assert answer(results).endswith("; 2 of them and the base are not above chance.")


def test_guessing_is_counted_on_the_answers_of_an_evaluation() -> None:
    given = {
        **EXPERIMENT,
        "probes": {"recall": RECALL},
        "probe_train": {**EXPERIMENT["train"], "lr": 0.003, "evaluate_tokens": 80},
        "outcomes": ["loss", "accuracy:recall"],
    }
    experiment = read_experiment(given)
    data = opened(experiment)
    (found,) = guessing(experiment, data).values()
    examples = data["recall"].validation(16)
    assert (found.chance, found.answers) == (1 / 2, sum(int((examples[i].targets != IGNORED).sum()) for i in range(80 // 16)))
    assert found.answers == 5 * 2 * 2
    assert [found.reaches([share]) for share in (0.0, found.chance, found.most, found.most + 1e-9)] == [True, True, True, False]
    assert not found.reaches([])


def test_luck_exceeds_what_guessing_reaches_once_in_a_thousand_times() -> None:
    given = {**EXPERIMENT, "probes": {"recall": {**RECALL, "validation_examples": 256}}, "outcomes": ["accuracy:recall"]}
    experiment = read_experiment(given)
    (found,) = guessing(experiment, opened(experiment)).values()
    shares = np.random.default_rng(0).binomial(found.answers, found.chance, 100_000) / found.answers
    assert 0 < float((shares > found.most).mean()) <= 0.001


def test_an_experiment_in_which_nobody_learned_says_so_in_its_results_and_on_the_terminal(tmp_path: Path) -> None:
    given = {**SHORT, "outcomes": ["loss", "accuracy"], "train": {**SHORT["train"], "tokens": 128}}
    (tmp_path / "e.yaml").write_text(json.dumps(given))
    done = CliRunner().invoke(app, ["ablate", str(tmp_path / "e.yaml"), "--out", str(tmp_path / "out")], env={"COLUMNS": "1000"})
    assert done.exit_code == 0, done.stderr
    results = Results.model_validate_json((tmp_path / "out" / "results.json").read_text())
    remedy = "train longer, or make the probe easier"
    (accuracy,) = (c for c in results.variant("layernorm").comparisons if c.outcome == "accuracy")
    assert accuracy.sentence.endswith(f"; neither is above chance (0.167): {remedy}")
    told = f"accuracy: base and layernorm are not above chance (0.167), so it does not tell them apart: {remedy}"
    assert results.warnings == list(warnings(results))
    assert told in results.warnings
    assert f"note: {told}" in done.stdout
    assert accuracy.sentence in done.stdout


def test_a_probe_shows_what_guessing_comes_to() -> None:
    chart = next(chart for chart in charts(recalled(0.26, 0.27)) if chart.key == "probes")
    assert [mark.at for mark in chart.rows[0].panels[0].marks if isinstance(mark, Rule)] == [0.25]
    assert "The dotted line is what guessing comes to." in chart.caption


# To reproduce


def test_the_command_names_files_of_parts_and_plugins_are_told_with_their_versions() -> None:
    parts = [PartsFile(file="my norms.py", digest="0123456789abcdef"), PartsFile(file="<b>.py", digest="fedcba9876543210")]
    results = made_results(["gelu"], parts=parts, plugins={"my-ff": "1.2"}, environment={"device": "cuda"})
    html = html_of(results)
    command = "llamazoo ablate experiment.yaml --parts &#39;my norms.py&#39; --parts &#39;&lt;b&gt;.py&#39; --device cuda"
    assert f"<code>{command}</code>" in html
    assert " and the files of parts my norms.py (SHA-256 0123456789abcdef…), " in html
    assert ", and my-ff 1.2 installed.</p>" in html


def test_a_part_of_a_file_is_known_by_the_files_name_and_what_stood_in_it(tmp_path: Path) -> None:
    text = "import llamazoo\n\n\nclass Plain(llamazoo.Norm):\n    name = 'plain_in_file'\n\n    def forward(self, x):\n        return x\n"
    file = tmp_path / "deep" / "parts_of_mine.py"
    file.parent.mkdir()
    file.write_text(text)
    given = {**SHORT, "variants": {"plain": {"norm": "plain_in_file"}}, "seeds": 1, "noise": False}
    results = run_experiment(given, tmp_path / "out", parts=[file])
    (found,) = results.parts
    assert (found.file, results.plugins) == ("parts_of_mine.py", {})
    assert results.environment["parts_of_mine.py"] == f"a file of yours, SHA-256 {found.digest}…"
    assert "local" not in results.environment
    assert "<code>llamazoo ablate experiment.yaml --parts parts_of_mine.py</code>" in (tmp_path / "out" / "report.html").read_text()
    for name in ("results.json", "report.html", "report.md"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text()


def test_parts_of_a_distribution_are_plugins_and_those_of_llamazoo_are_neither() -> None:
    class Plain(llamazoo.Norm):
        name = "plain_of_plugin"

        def forward(self, x: Any) -> Any:
            return x

    registry = llamazoo.default_registry().extended()
    registry.add(Plain, "my-plugin", "0.3")
    given = {**SHORT, "variants": {"plain": {"norm": "plain_of_plugin"}}}
    mixed = read_experiment(given, registry).candidates
    assert (parts_of(mixed), plugins_of(mixed)) == ([], {"my-plugin": "0.3"})
    own = read_experiment(SHORT).candidates
    assert (parts_of(own), plugins_of(own)) == ([], {})


# Factors


def test_the_terminal_tells_what_factors_do_and_what_two_do_together(tmp_path: Path) -> None:
    given = {key: value for key, value in SHORT.items() if key != "variants"}
    given |= {"factors": {"norm": ["rmsnorm", "layernorm"], "position": ["rope", "alibi"]}, "noise": False}
    (tmp_path / "e.yaml").write_text(json.dumps(given))
    done = CliRunner().invoke(app, ["ablate", str(tmp_path / "e.yaml"), "--out", str(tmp_path / "out")], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.stderr
    results = Results.model_validate_json((tmp_path / "out" / "results.json").read_text())
    lines = done.stdout.splitlines()
    for each in results.effects:
        name = " × ".join(f"{factor} = {choice}" for factor, choice in zip(each.factors, each.choices, strict=True))
        told = [name, " × ".join(each.against), f"{each.estimate:+.{3 if each.outcome == 'accuracy' else 4}f}"]
        assert any(line.startswith(f"{name} ") and all(word in line for word in told) for line in lines), name
    assert "cannot be told from" not in done.stdout, "a column in which nothing stands"


# In Markdown


def test_the_figures_are_in_the_markdown_with_what_their_greys_and_bands_mean() -> None:
    results = made_results(["gelu"], factors=True)
    drawings = charts(results, made_timings(results))
    text = markdown(results, drawings)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    images = [child.attrs["src"] for token in tokens for child in token.children or () if child.type == "image"]
    assert images == [f"figures/{chart.key}.png" for chart in drawings]
    for words in (
        "Grey line: no difference.",
        "Grey area: what two runs of the base may differ by",
        "Bands: from the lowest",
        "An arrowhead: ",
    ):
        assert words in text
    for chart in drawings:
        assert sum(line.startswith(f"**{chart.title}.** ") for line in text.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("-0.006 nats (95 % interval -0.047 to +0.035, p = 1)", "-0.006 nats (95 % interval -0.047 to +0.035, p = 1)"),
        ("swiglu_alibi, loss@4x, a & b, p < 0.001, 1 > 0, {x}!", "swiglu_alibi, loss@4x, a & b, p \\< 0.001, 1 > 0, {x}!"),
        ("_x_ __init__ a_", "\\_x\\_ \\_\\_init\\_\\_ a\\_"),
        ("![a](b) [c]: d", "!\\[a\\](b) \\[c\\]: d"),
        ("*b* `c` ~d~ $e$ |", "\\*b\\* \\`c\\` \\~d\\~ \\$e\\$ \\|"),
        ("&lt; &#60; <b>", "\\&lt; \\&#60; \\<b>"),
        ("{{ x }} {% y %}", "\\{\\{ x }} \\{\\% y %}"),
        ("name #", "name \\#"),
        ("@someone a@b.c", "\\@someone a\\@b.c"),
    ],
)
def test_only_what_markdown_would_take_for_something_else_is_escaped(text: str, written: str) -> None:
    assert escaped(text) == written
    (_, inline, _) = MarkdownIt("commonmark").parse(written)
    assert "".join(child.content for child in inline.children or ()) == text
