"""Training: what a recipe says is done, a run is resumed bit for bit, and nothing that goes wrong reaches the weights."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import llamazoo
from llamazoo.data.example import IGNORED, Example, stacked
from llamazoo.errors import DataError, DivergedError, TrainingError
from llamazoo.training import checkpoint
from llamazoo.training.checkpoint import newest
from llamazoo.training.evaluate import evaluate
from llamazoo.training.loop import train
from llamazoo.training.optimizer import Update, Updater
from llamazoo.training.recipe import Recipe
from llamazoo.training.watch import Watcher

SPEC = {
    "version": 1, "vocab_size": 11, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "max_seq_len": 16,
    "norm": "rmsnorm", "position": "rope", "attention": "multihead", "feed_forward": "swiglu",
}  # fmt: skip


class Counting:
    """Tokens that count upwards from where the example's number says, modulo a prime."""

    def __init__(self, length: int, key: int, count: int) -> None:
        self.length, self.key, self.count = length, key, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if index >= self.count:
            raise IndexError(index)
        whole = (torch.arange(self.length + 1) * (1 + index % 3) + index * 7 + self.key) % 11
        return Example(whole[:-1], whole[1:].clone(), torch.zeros(self.length, dtype=torch.int64))


class CountingData:
    vocab_size, fingerprint, accuracy = 11, "counting", True

    def training(self, seq_len: int, seed: int) -> Counting:
        return Counting(seq_len, seed, 1 << 40)

    def validation(self, seq_len: int) -> Counting:
        return Counting(seq_len, 5, 10)

    def facts(self) -> dict[str, str | int | float]:
        return {}


def recipe(**changes: Any) -> Recipe:
    given = {"tokens": 640, "batch_tokens": 32, "seq_len": 8, "evaluate_tokens": 64, "lr": 0.01, **changes}
    return Recipe(**given)


def model(**overrides: Any) -> llamazoo.Decoder:
    return llamazoo.build_model(SPEC, overrides=overrides, device="cpu")


def weights(of: llamazoo.Decoder) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in of.named_parameters()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


class Record(Watcher):
    def __init__(self) -> None:
        self.updates: list[tuple[int, Update]] = []

    def updated(self, step: int, update: Update, seconds: float) -> None:
        self.updates.append((step, update))


def test_a_model_learns_to_count() -> None:
    trained = train(learner := model(), CountingData(), recipe(tokens=6400))
    assert trained.points[-1].loss < 0.2 < 1.2 < trained.points[0].loss < math.log(11)
    assert trained.points[-1].accuracy > 0.9
    assert trained.tokens == 6400
    assert not learner.training


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_the_learning_rate_rises_stays_and_falls_as_its_schedule_says(schedule: str) -> None:
    given = recipe(tokens=3200, schedule=schedule, warmup=0.1, decay=0.3, final_lr=0.1, lr=1.0)
    rates = [given.learning_rate(step) for step in range(given.steps)]
    assert given.steps == 100
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    last = {"constant": 1.0, "cosine": 0.1, "wsd": 0.1}[schedule]
    assert rates[-1] == pytest.approx(last)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    if schedule == "wsd":
        assert rates[10:70] == [1.0] * 60
        assert rates[85] == pytest.approx(1 - 0.9 * 16 / 30)
    if schedule == "cosine":
        assert rates[54] == pytest.approx(0.55, abs=0.02)


def test_the_update_is_adamw_by_hand() -> None:
    ours, theirs, batch = model(), model(), stacked([Counting(8, 0, 9)[3]])
    given = recipe(lr=0.01, warmup=0.0, schedule="constant", weight_decay=0.5, clip=None, eps=1e-8)
    update = Updater(ours, given).step(batch, 0)
    loss = theirs.loss(batch.tokens, batch.targets)
    loss.backward()
    assert update.loss == pytest.approx(loss.item(), rel=1e-6)
    with torch.no_grad():
        for p in theirs.parameters():
            p.mul_(1 - 0.01 * (0.5 if p.ndim > 1 else 0.0))
            p.sub_(0.01 * p.grad / (p.grad.abs() + 1e-8))  # the first step of Adam is the gradient's sign
    for name, value in weights(ours).items():
        torch.testing.assert_close(value, weights(theirs)[name], rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_together() -> None:
    rows = stacked([Counting(8, 0, 9)[3]])
    free, clipped = (Updater(model(), recipe(clip=clip)) for clip in (None, 1e-3))
    assert free.step(rows, 0).norm == pytest.approx(clipped.step(rows, 0).norm) != pytest.approx(1e-3)


def test_accumulation_counts_tokens_and_not_micro_batches() -> None:
    """A micro-batch with few targets weighs as little as they do."""
    rows = [Counting(8, 0, 99)[i] for i in range(4)]
    uneven = [
        Example(r.tokens, r.targets.masked_fill(torch.arange(8) >= keep, IGNORED), r.segments)
        for r, keep in zip(rows, (8, 1, 0, 3), strict=True)
    ]
    batch = Example(*(torch.stack(each) for each in zip(*uneven, strict=True)))
    whole, cut = (Updater(model(), recipe(micro_batch_tokens=micro)) for micro in (None, 8))
    first, second = whole.step(batch, 0), cut.step(batch, 0)
    assert first.loss == pytest.approx(second.loss, rel=1e-6)
    assert first.norm == pytest.approx(second.norm, rel=1e-5)
    assert first.targets == second.targets == 12
    for name, value in weights(whole.model).items():
        torch.testing.assert_close(value, weights(cut.model)[name], rtol=1e-4, atol=2e-5)


def test_an_evaluation_is_the_mean_over_all_targets_and_leaves_the_model_as_it_was() -> None:
    learner = model().train()
    examples = Counting(8, 5, 5)
    score = evaluate(learner, examples, rows=2)
    assert learner.training
    rows = stacked(examples[i] for i in range(5))
    assert score.loss == pytest.approx(learner.eval().loss(rows.tokens, rows.targets).item(), rel=1e-6)
    assert score.accuracy == pytest.approx(float((learner(rows.tokens).argmax(-1) == rows.targets).float().mean()))
    assert score.targets == 40
    assert evaluate(learner, examples, rows=2, tokens=16).targets == 16


class Noisy(llamazoo.Activation):
    """Draws random numbers in training, as dropout does."""

    name = "noisy"

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(torch.nn.functional.silu(x), 0.2, self.training)


NOISY = llamazoo.default_registry().extended(Noisy)


def noisy() -> llamazoo.Decoder:
    return llamazoo.build_model(SPEC, overrides={"feed_forward.activation": "noisy"}, device="cpu", registry=NOISY)


@pytest.mark.parametrize("stop_at", [1, 7, 12, 20])
def test_a_run_that_is_interrupted_and_resumed_ends_in_the_same_bits(stop_at: int, tmp_path: Path) -> None:
    class Interrupt(Watcher):
        def updated(self, step: int, update: Update, seconds: float) -> None:
            if step + 1 == stop_at:
                raise KeyboardInterrupt

    given = recipe(checkpoint_every=96, evaluate_every=128, tokens=640 + 5)
    straight, record = noisy(), Record()
    expected = train(straight, CountingData(), given, tmp_path / "straight", seed=3, watchers=[record])
    assert [update.targets for _, update in record.updates] == [32] * 20 + [8]  # the last batch is smaller: no example is lost
    with pytest.raises(KeyboardInterrupt):
        train(noisy(), CountingData(), given, tmp_path / "run", seed=3, watchers=[Interrupt()])
    torch.rand(7)
    resumed, rest = noisy(), Record()
    found = train(resumed, CountingData(), given, tmp_path / "run", seed=3, watchers=[rest])
    assert found.points == expected.points
    assert rest.updates[0][0] == (stop_at - 1) // 3 * 3  # a checkpoint every three steps
    assert_equal(weights(resumed), weights(straight))
    ours, theirs = (_journal(tmp_path / name) for name in ("run", "straight"))
    assert ours == theirs
    assert [line["step"] for line in ours if "loss" in line] == list(range(21))
    again = train(noisy(), CountingData(), given, tmp_path / "run", seed=3, watchers=[none := Record()])
    assert (again.points, none.updates) == (expected.points, [])


def _journal(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_checkpoint_of_another_run_is_refused_and_stays(tmp_path: Path) -> None:
    train(model(), CountingData(), recipe(), tmp_path)
    with pytest.raises(TrainingError, match="belongs to a run of another model, other data or another recipe"):
        train(model(), CountingData(), recipe(lr=0.02), tmp_path)
    assert newest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-000000020"


@pytest.mark.parametrize(("name", "keep", "message"), [
    ("tensors.safetensors", 100, "has 100 bytes in place of"),
    ("tensors.safetensors", None, "is damaged"),
    ("progress.json", 30, "is damaged"),
])  # fmt: skip
def test_a_damaged_checkpoint_is_refused_by_name(name: str, keep: int | None, message: str, tmp_path: Path) -> None:
    train(model(), CountingData(), recipe(), tmp_path)
    file = tmp_path / "checkpoints" / "step-000000020" / name
    content = file.read_bytes()
    file.unlink()
    if keep is not None:
        file.write_bytes(content[:keep])
    with pytest.raises(TrainingError, match=rf"step-000000020: .*{message}.*remove it"):
        train(model(), CountingData(), recipe(), tmp_path)


class Poisoned(CountingData):
    """At some examples the model is made to answer with what is no number."""

    def __init__(self, learner: llamazoo.Decoder, at: set[int]) -> None:
        plain = learner.logits

        def logits(x: Tensor) -> Tensor:
            self.calls += learner.training
            return plain(x) * (float("nan") if learner.training and self.calls - 1 in at else 1.0)

        self.calls = 0
        learner.logits = logits  # type: ignore[method-assign]


def test_a_loss_that_is_no_number_is_skipped_by_policy_and_never_reaches_the_weights(tmp_path: Path) -> None:
    learner, seen = model(), []

    class Look(Watcher):
        def updated(self, step: int, update: Update, seconds: float) -> None:
            seen.append((update.taken, weights(learner)))

    trained = train(learner, Poisoned(learner, {2, 5, 6}), recipe(non_finite="skip"), tmp_path, watchers=[Look()])
    assert [step for step, (taken, _) in enumerate(seen) if not taken] == [2, 5, 6]
    for step in (2, 5, 6):
        assert_equal(seen[step][1], seen[step - 1][1])
    assert trained.skipped == 3
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters())
    logged = [line for line in _journal(tmp_path) if line.get("taken") is False]
    assert [(line["step"], line["loss"]) for line in logged] == [(2, None), (5, None), (6, None)]
    assert trained.points[-1].training_loss is not None


def test_a_loss_that_is_no_number_ends_the_run_by_policy_with_the_weights_as_they_were(tmp_path: Path) -> None:
    learner = model()
    straight = model()
    with pytest.raises(DivergedError, match="at step 5 the loss is nan and the norm of its gradients nan; no update was made"):
        train(learner, Poisoned(learner, {4}), recipe(), tmp_path)
    with pytest.raises(DivergedError):
        train(straight, Poisoned(straight, {4}), recipe())
    assert_equal(weights(learner), weights(straight))
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters())
    assert _journal(tmp_path)[-1]["taken"] is False


def test_skipping_without_end_is_an_end() -> None:
    learner = model()
    before = weights(learner)
    with pytest.raises(DivergedError, match=r"at step 4 .* the 4th in a row without an update"):
        train(learner, Poisoned(learner, set(range(100))), recipe(non_finite="skip", max_skipped=4))
    assert_equal(weights(learner), before)


def test_data_that_the_model_cannot_take_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data has 11 different tokens, the model's vocabulary only 7; set vocab_size: 11"):
        train(model(vocab_size=7), CountingData(), recipe(), tmp_path / "a")
    with pytest.raises(DataError, match="seq_len 32 is longer than the model's context, max_seq_len 16"):
        train(model(), CountingData(), recipe(seq_len=32), tmp_path / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["step", "evaluation", "compilation", "save"])
def test_a_sigterm_leaves_a_whole_checkpoint_and_the_exit_status_says_so(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask() -> None:
        if not asked:
            asked.append(where)
            os.kill(os.getpid(), signal.SIGTERM)

    class Ask(Watcher):
        def updated(self, step: int, update: Update, seconds: float) -> None:
            if where == "step" and step == 4:
                ask()

    class AskingData(CountingData):
        def validation(self, seq_len: int) -> Counting:
            class Asking(Counting):
                def __getitem__(self, index: int) -> Example:
                    if where == "evaluation" and index == 5:
                        ask()
                    return super().__getitem__(index)

            return Asking(seq_len, 5, 10)

    if where == "save":
        monkeypatch.setattr(checkpoint, "save_file", lambda *args: (ask(), save_file(*args)))
    learner = model()
    if where == "compilation":

        def backend(graph: Any, inputs: Any) -> Any:
            ask()
            return graph.forward

        learner.core = torch.compile(learner.core, backend=backend)  # type: ignore[method-assign]
    given = recipe(evaluate_every=192, checkpoint_every=192)  # every sixth step
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        train(learner, AskingData(), given, tmp_path, watchers=[Ask()])
    assert asked == [where]
    assert signal.getsignal(signal.SIGTERM) == before
    step = {"step": 5, "evaluation": 6, "compilation": 1, "save": 6}[where]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"step-{step:09d}"]
    straight, resumed = model(), model()
    train(straight, CountingData(), given)
    found = train(resumed, CountingData(), given, tmp_path)
    assert len(found.points) == 4
    assert_equal(weights(resumed), weights(straight))
    torch.compiler.reset()


def test_a_run_that_is_killed_anywhere_in_a_save_resumes_from_a_whole_checkpoint(tmp_path: Path) -> None:
    """The kernel ends the program at some byte of a file, or at some call that opens, renames or removes one; fifty places in all."""
    program = Path(__file__).parent / "programs" / "killed_saves.py"
    done = subprocess.run([sys.executable, str(program), str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["steps"]) == 50
    assert set(told["steps"]) == {3, 4}  # the newest whole one: that of before, or the one that was being written
    assert told["killed"] == 50


def test_experts_are_evened_out_while_training() -> None:
    spec = {"feed_forward": {"type": "experts", "n_experts": 4, "top_k": 1, "hidden_dim": 8, "router": {"type": "grouped", "n_groups": 2}}}
    learner = model(**spec)
    train(learner, CountingData(), recipe(correction_rate=0.5))
    corrections = [m.correction for m in learner.modules() if getattr(m, "correction", None) is not None]
    assert len(corrections) == 2
    assert all(bool((c != 0).any()) for c in corrections)


def test_bfloat16_trains_and_keeps_its_weights_in_float32() -> None:
    learner = model()
    trained = train(learner, CountingData(), recipe(precision="bfloat16", tokens=3200))
    assert {p.dtype for p in learner.parameters()} == {torch.float32}
    assert trained.points[-1].loss < trained.points[0].loss


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # said by the compiler of itself
def test_a_compiled_run_learns_what_a_plain_one_does() -> None:
    plain, compiled = model(), model()
    first, second = train(plain, CountingData(), recipe()), train(compiled, CountingData(), recipe(compile=True))
    assert second.points[-1].loss == pytest.approx(first.points[-1].loss, abs=1e-4)


def test_threads_and_random_numbers_are_afterwards_as_they_were() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train(model(), CountingData(), recipe(threads=2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch_tokens": 20}, "batch_tokens 20 is no multiple of seq_len 8"),
    ({"micro_batch_tokens": 24}, "batch_tokens 32 is no multiple of micro_batch_tokens 24"),
    ({"lr": -1.0}, "lr"), ({"tokens": 0}, "tokens"), ({"schedule": "triangle"}, "schedule"), ({"warmup": 2.0}, "warmup"),
])  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)
