"""An experiment as a whole: what is run, that nothing is run twice, and that a result does not depend on how it came about."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_experiment import BASE

import llamazoo
from llamazoo.ablation import Heard, run
from llamazoo.ablation.experiment import read_experiment
from llamazoo.ablation.facts import facts_of
from llamazoo.ablation.plan import Plan
from llamazoo.ablation.prepare import prepare
from llamazoo.ablation.preview import preview
from llamazoo.ablation.report.answer import warnings
from llamazoo.ablation.results import Results
from llamazoo.errors import SpecError, TrainingError, UnsupportedError

PROGRAM = Path(__file__).parent / "programs" / "ablate.py"
EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "base": BASE,
    "variants": {"layernorm": {"norm": "layernorm"}, "learned": {"position": "learned"}},
    "match": "none",
    "data": {"source": "induction", "vocab_size": 24, "length": 8, "span": 3, "spans": 2},
    "train": {"tokens": 1280, "batch_tokens": 128, "seq_len": 16, "lr": [0.003, 0.01], "evaluate_tokens": 256},
    "seeds": 2,
    "outcomes": ["loss", "accuracy"],
}


SHORT = {**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}, "train": {**EXPERIMENT["train"], "lr": 0.003}}


def on_documents(folder: Path, length: int) -> dict[str, Any]:
    """An experiment on texts of so many bytes each, one seed of it."""
    texts = [f"{number:03d}" + "so it goes, " * (length // 12 + 1) for number in range(80)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text[:length]}) + "\n" for text in texts))
    data = {"source": "files", "paths": [str(folder / "texts.jsonl")], "validation": 0.3}
    rate = {**EXPERIMENT["train"], "lr": 0.003}
    return {
        **EXPERIMENT,
        "base": {**BASE, "vocab_size": 256},
        "data": data,
        "train": rate,
        "seeds": 1,
        "noise": False,
        "outcomes": ["loss"],
    }


class Heedful:
    """Notes what was run."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def __call__(self, heard: Heard) -> None:
        self.heard.append(heard)


def test_an_experiment_goes_from_its_file_to_a_report(tmp_path: Path) -> None:
    listener = Heedful()
    results = run(EXPERIMENT, tmp_path, watch=listener)
    roles = [heard.job.role for heard in listener.heard]
    assert (roles.count("tuning"), roles.count("evaluation"), roles.count("noise")) == (3 * 2 * 2, 3 * 2, 2)
    assert [variant.name for variant in results.variants] == ["base", "layernorm", "learned"]
    for variant in results.variants:
        assert [run.seed for run in variant.runs] == [0, 1]
        assert variant.lr in (0.003, 0.01)
        assert [rate.lr for rate in variant.learning_rates] == [0.003, 0.01]
        assert variant.at_edge
        for each, *tried in zip(variant.runs, *(rate.losses for rate in variant.learning_rates), strict=True):
            assert each.lr == (0.003, 0.01)[tried.index(min(tried))]
            assert set(each.outcomes) == {"loss", "accuracy"}, "a longer text of a probe has more tasks, and none is longer"
            assert each.curve[-1].loss == each.outcomes["loss"]
    assert {results.data[key] for key in ("vocab_size", "token_ids")} == {24, 25}
    layernorm = results.variant("layernorm")
    assert {(c.outcome, len(c.differences)) for c in layernorm.comparisons} == {("loss", 2), ("accuracy", 2)}
    assert results.noise is not None
    assert len(results.noise.differences["loss"]) == 2
    assert results.noise.differences["loss"] != [0.0, 0.0]
    again = Results.model_validate_json((tmp_path / "results.json").read_text())
    assert again == results
    assert {"report.html", "report.md", "results.json", "timings.json", "figures", "runs"} <= {path.name for path in tmp_path.iterdir()}
    assert str(tmp_path) not in (tmp_path / "results.json").read_text()


def test_what_is_finished_is_not_run_again_and_gives_the_same_results(tmp_path: Path) -> None:
    first = run(EXPERIMENT, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/result.json")}
    written = (tmp_path / "results.json").read_bytes()
    (tmp_path / "results.json").unlink()
    assert run(EXPERIMENT, tmp_path) == first
    assert (tmp_path / "results.json").read_bytes() == written
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/result.json")} == before
    more = run({**EXPERIMENT, "seeds": 3}, tmp_path)
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == len(before) + 3 * (2 + 1) + 1
    assert more.variants[0].runs[:2] == first.variants[0].runs


def test_a_repetition_with_fresh_seeds_shares_no_run(tmp_path: Path) -> None:
    given = {**EXPERIMENT, "variants": {"layernorm": {"norm": "layernorm"}}, "train": {**EXPERIMENT["train"], "lr": 0.003}}
    once, fresh = run(given, tmp_path), run({**given, "first_seed": 2}, tmp_path)
    assert [each.seed for each in fresh.variants[0].runs] == [2, 3]
    assert len(fresh.variants[1].comparisons[0].differences) == 2
    assert not {each.outcomes["loss"] for each in once.variants[0].runs} & {each.outcomes["loss"] for each in fresh.variants[0].runs}


def test_a_pair_of_equal_seed_sees_the_same_examples_and_starts_from_equal_values(tmp_path: Path) -> None:
    """A variant that computes the same differs by nothing at all; from other first values it does."""
    same = {**EXPERIMENT, "variants": {"again": {"init.seed": 1}, "named": {"norm": {"type": "rmsnorm", "eps": 1.1e-5}}}}
    results = run({**same, "train": {**EXPERIMENT["train"], "lr": 0.003}}, tmp_path)
    again, named = (results.variant(name).comparisons[0] for name in ("again", "named"))
    assert max(map(abs, named.differences)) < 1e-4
    assert min(map(abs, again.differences)) > 1e-4


def test_a_variant_that_computes_the_same_is_no_different_and_equal_answers_alone_are_no_evidence(tmp_path: Path) -> None:
    """Trained on so little, all guess one token: accuracies of a stranger are equal too, losses are not."""
    variants = {"same": {"norm": {"type": "rmsnorm", "eps": 1e-5}}, "other": {"norm": "layernorm"}}
    eps = math.nextafter(1e-5, 1)  # in float32 the same, in the spec another
    base = {**BASE, "norm": {"type": "rmsnorm", "eps": eps}, "init": {"std": 1e-4}}
    train = {**EXPERIMENT["train"], "tokens": 256, "lr": 1e-9}
    found = run({**EXPERIMENT, "base": base, "variants": variants, "train": train, "outcomes": ["accuracy"]}, tmp_path)
    same, other = (found.variant(name).comparisons[0] for name in variants)
    assert (same.mean, same.verdict) == (0.0, "no difference shown")
    assert same.sentence.startswith("no difference shown: the same as the base in both")
    assert (other.mean, other.verdict) == (0.0, "too few seeds")
    assert "though the two do not compute the same" in other.sentence


def test_results_tell_how_much_of_the_split_they_are_measured_on(tmp_path: Path) -> None:
    given = {**SHORT, "seeds": 1, "noise": False, "probes": {"again": {**EXPERIMENT["data"], "length": 6}}, "outcomes": ["loss"]}
    data = run(given, tmp_path).data
    assert (data["evaluated documents"], data["evaluated tokens"]) == (16, 16 * 4)
    assert data["again: evaluated documents"] == 16
    assert "evaluated documents" in (tmp_path / "report.html").read_text()


def test_all_launchers_find_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    run(SHORT, tmp_path / "sequential")
    for launcher in ("processes", "ray"):
        done = _program(tmp_path / launcher, launcher)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / launcher / "results.json").read_bytes() == (tmp_path / "sequential" / "results.json").read_bytes()


@pytest.mark.parametrize("launcher", ["sequential", "processes"])
def test_an_experiment_that_is_killed_again_and_again_leaves_nobody_and_ends_in_the_same_bytes(launcher: str, tmp_path: Path) -> None:
    run(SHORT, tmp_path / "straight")
    kills = 0
    for wait in (0.0, 0.1, 0.3):
        if _killed(tmp_path / "killed", launcher, wait):
            kills += 1
    done = _program(tmp_path / "killed", launcher)
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    ours, theirs = ((tmp_path / name / "results.json").read_bytes() for name in ("straight", "killed"))
    assert ours == theirs


def _arguments(folder: Path, launcher: str) -> list[str]:
    return [sys.executable, str(PROGRAM), json.dumps(SHORT), str(folder), launcher]


def _program(folder: Path, launcher: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_arguments(folder, launcher), capture_output=True, text=True, timeout=300)


def _killed(folder: Path, launcher: str, wait: float) -> bool:
    """Whether the program was still at work a moment after its first new run, when it was killed."""
    there = len(list(folder.glob("runs/*")))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(_arguments(folder, launcher), start_new_session=True, **quiet)
    until = time.monotonic() + 120
    while child.poll() is None and len(list(folder.glob("runs/*"))) <= there and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(wait)
    child.send_signal(signal.SIGKILL)
    killed = child.wait() == -signal.SIGKILL
    while _anybody(child.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _anybody(child.pid), "a program that is killed leaves processes behind"
    return killed


def _anybody(group: int) -> bool:
    """Whether a process of a group is still there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_result_of_a_part_that_was_edited_since_is_not_used(tmp_path: Path) -> None:
    def jobs(factor: float) -> list[str]:
        file = tmp_path / "parts.py"
        file.write_text(
            "import llamazoo\n\n\nclass Scaled(llamazoo.Norm):\n    name = 'scaled'\n\n    def forward(self, x):\n"
            f"        return x * {factor}\n"
        )
        registry = llamazoo.parts.registry_with([file])
        plan = Plan(read_experiment({**EXPERIMENT, "variants": {"scaled": {"norm": "scaled"}}}, registry))
        return [job.key for job in plan.all_jobs() if job.role == "evaluation"]

    once, again, edited = jobs(1.0), jobs(1.0), jobs(2.0)
    assert once == again
    assert [ours == theirs for ours, theirs in zip(once, edited, strict=True)] == [True, False, True, False]


def test_a_part_of_this_process_only_runs_here_and_is_refused_elsewhere(tmp_path: Path) -> None:
    class Plain(llamazoo.Norm):
        name = "plain"

        def forward(self, x: Any) -> Any:
            return x

    registry = llamazoo.default_registry().extended(Plain)
    given = {**EXPERIMENT, "variants": {"plain": {"norm": "plain"}}, "seeds": 1, "noise": False}
    with pytest.raises(UnsupportedError, match=r"another process finds only parts that are installed, or stand in a file .* no norm named"):
        run(given, tmp_path / "a", registry=registry, launcher="processes")
    assert run(given, tmp_path / "b", registry=registry).variant("plain").runs[0].diverged is None


def test_a_part_in_a_file_is_found_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "parts.py"
    file.write_text("import llamazoo\n\n\nclass Plain(llamazoo.Norm):\n    name = 'plain'\n\n    def forward(self, x):\n        return x\n")
    given = {**EXPERIMENT, "variants": {"plain": {"norm": "plain"}}, "seeds": 1, "noise": False}
    assert run(given, tmp_path / "out", parts=[file]).variant("plain").runs[0].diverged is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"typo": {"norm": "layernrm"}}}, r"variants\.typo: norm: no norm named 'layernrm'"),
        (
            {"outcomes": ["loss", "loss@4x"], "data": {"source": "stdlib", "max_documents": 20}, "base": {**BASE, "vocab_size": 256}},
            r"'learned' cannot be built for 64 tokens .* max_seq_len: 64",
        ),
        ({"base": {**BASE, "vocab_size": 7}}, r"data: has \d+ token ids, more than fit into vocab_size: 'base' has 7"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        run({**EXPERIMENT, **changes}, tmp_path / "out")
    assert not list(tmp_path.glob("out/runs/*"))


def test_losses_at_longer_texts_are_measured_where_a_variant_can_be_built_for_them(tmp_path: Path) -> None:
    results = run(on_documents(tmp_path, 400), tmp_path / "out")
    learned, layernorm = (results.variant(name).runs[0].outcomes for name in ("learned", "layernorm"))
    assert set(learned) == set(layernorm) == {"loss", "loss@2x", "loss@4x"}
    assert learned["loss@4x"] is None  # its table has 32 rows
    assert None not in (learned["loss@2x"], layernorm["loss@4x"])
    assert not [warning for warning in warnings(results) if "too short" in warning]


def test_of_short_documents_it_is_told_how_little_of_longer_texts_is_longer(tmp_path: Path) -> None:
    given = on_documents(tmp_path, 20)  # three of each, behind the first sixteen, have more behind them
    results = run(given, tmp_path / "out")
    told = [warning for warning in warnings(results) if "too short" in warning]
    assert [warning.partition(" to say")[0] for warning in told] == [f"documents are too short for loss@{n}x" for n in (2, 4)]
    ready = prepare(read_experiment(given))
    assert [
        warning for warning in preview(ready.plan, data=facts_of(ready.plan.experiment, ready.data)).warnings if "too short" in warning
    ] == told
    assert "too short for loss" in (tmp_path / "out" / "report.md").read_text()
    shares = [share for name, share in results.data.items() if name.startswith("share of targets at")]
    assert len(shares) == 2
    assert all(0.05 < share < 3 / 19 for share in shares)  # fewer, by those that are cut


def test_a_damaged_result_is_told_and_not_taken(tmp_path: Path) -> None:
    given = {**EXPERIMENT, "seeds": 1, "noise": False}
    run(given, tmp_path)
    file = next((tmp_path / "runs").glob("*/result.json"))
    file.write_text(file.read_text()[:100])
    with pytest.raises(TrainingError, match=r"result\.json: is damaged .*; remove it, and the run is done again"):
        run(given, tmp_path)


def test_an_unknown_launcher_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no launcher 'slurm'; known: sequential, processes, ray"):
        run(EXPERIMENT, tmp_path, launcher="slurm")


def test_a_variant_that_diverges_is_unstable_and_the_others_are_compared(tmp_path: Path) -> None:
    given = {**EXPERIMENT, "variants": {"wild": {"init.std": 1e18}, "layernorm": {"norm": "layernorm"}}, "outcomes": ["loss"]}
    results = run({**given, "train": {**EXPERIMENT["train"], "lr": 0.01}}, tmp_path)
    wild = results.variant("wild")
    assert [each.diverged is not None for each in wild.runs] == [True, True]
    assert wild.comparisons[0].verdict == "unstable"
    assert results.variant("layernorm").comparisons[0].verdict != "unstable"


def test_seeds_that_were_added_are_a_second_look_and_said_to_be_one(tmp_path: Path) -> None:
    first = run(SHORT, tmp_path)
    assert run(SHORT, tmp_path).earlier == first.earlier == []
    more = run({**SHORT, "seeds": 3}, tmp_path)
    assert more.earlier == [2]
    assert any(told.startswith("a second look: these runs were compared before with 2 of the 3 seeds") for told in more.warnings)
    again = run({**SHORT, "seeds": 3}, tmp_path)
    assert again == more
    assert run({**SHORT, "seeds": 4}, tmp_path).earlier == [2, 3]
    assert run({**SHORT, "seeds": 3, "first_seed": 5}, tmp_path).earlier == []
