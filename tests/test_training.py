"""Training: what a recipe says is done, a run is resumed bit for bit, and nothing that goes wrong reaches the weights."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting import SPEC, Counting, CountingData, assert_equal, journal, model, recipe, weights
from torch import Tensor

import llamazoo
from llamazoo.data.example import IGNORED, Example, stacked
from llamazoo.data.packing import OnePass
from llamazoo.errors import DataError, DivergedError, InputError, TrainingError, UnsupportedError
from llamazoo.training import checkpoint
from llamazoo.training.evaluate import Evaluated, evaluate, evaluated, evaluated_examples
from llamazoo.training.fit import training_dtype
from llamazoo.training.loop import train
from llamazoo.training.optimizer import Update, Updater, adamw, decayed
from llamazoo.training.pinned import deterministic
from llamazoo.training.watch import Watcher
from llamazoo.weights.store import write_safetensors


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


@pytest.mark.parametrize(("count", "tokens"), [(5, 16), (28, 80), (100, 800), (100, 8), (7, 9999), (3, 1), (1000, None)])
def test_an_evaluation_reads_examples_from_all_over_the_split(count: int, tokens: int | None) -> None:
    found = evaluated_examples(count, 8, tokens)
    assert len(found) == (count if tokens is None else min(count, max(1, tokens // 8)))
    assert found[0] == 0
    gaps = {after - before for before, after in pairwise([*found, count])}
    assert gaps <= {count // len(found), -(-count // len(found))}, "every stretch of the split has its share"


def test_every_document_of_a_split_has_its_share_in_an_evaluation_that_reads_a_part_of_it() -> None:
    class Documents:
        lengths = np.array([64] * 28 + [1])

        def __getitem__(self, index: int) -> Any:
            return np.full(self.lengths[index], index % 11, dtype=np.uint16)

    split = OnePass(Documents(), 8)
    assert evaluated(split) == Evaluated(documents=28, tokens=28 * 63), "a document of one token has nothing to predict"
    assert evaluated(split, 8 * 64).documents == 28
    assert evaluated(split, 8 * 14).documents == 14
    assert evaluated(split, 8 * 64).tokens == evaluate(model(), split, rows=3, tokens=8 * 64).targets
    with pytest.raises(DataError, match="the validation split has no examples"):
        evaluated(Counting(8, 0, 0))


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
    ours, theirs = (journal(tmp_path / name) for name in ("run", "straight"))
    assert ours == theirs
    assert [line["step"] for line in ours if "loss" in line] == list(range(21))
    again = train(noisy(), CountingData(), given, tmp_path / "run", seed=3, watchers=[none := Record()])
    assert (again.points, none.updates) == (expected.points, [])


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
    logged = [line for line in journal(tmp_path) if line.get("taken") is False]
    assert [(line["step"], line["loss"]) for line in logged] == [(2, None), (5, None), (6, None)]
    assert trained.points[-1].training_loss is not None


def test_a_loss_that_is_no_number_ends_the_run_by_policy_with_the_weights_as_they_were(tmp_path: Path) -> None:
    learner = model()
    straight = model()
    with pytest.raises(DivergedError, match="at step 4 the loss is nan and the norm of its gradients nan; no update was made"):
        train(learner, Poisoned(learner, {4}), recipe(), tmp_path)
    with pytest.raises(DivergedError):
        train(straight, Poisoned(straight, {4}), recipe())
    assert_equal(weights(learner), weights(straight))
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters())
    assert journal(tmp_path)[-1]["taken"] is False


def test_skipping_without_end_is_an_end() -> None:
    learner = model()
    before = weights(learner)
    with pytest.raises(DivergedError, match=r"at step 3 .*; max_skipped: 4 steps in a row without an update"):
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
        monkeypatch.setattr(checkpoint, "write_safetensors", lambda *args: (ask(), write_safetensors(*args)))
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
    seen = AtWork(compiled)
    first, second = train(plain, CountingData(), recipe()), train(compiled, CountingData(), recipe(compile=True), watchers=[seen])
    assert seen.compiled == {True}
    assert not hasattr(compiled.core, "_torchdynamo_orig_callable")
    assert second.points[-1].loss == pytest.approx(first.points[-1].loss, abs=1e-4)


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch_tokens": 20}, "batch_tokens 20 is no multiple of seq_len 8"),
    ({"micro_batch_tokens": 24}, "batch_tokens 32 is no multiple of micro_batch_tokens 24"),
    ({"lr": -1.0}, "lr"), ({"tokens": 0}, "tokens"), ({"schedule": "triangle"}, "schedule"), ({"warmup": 2.0}, "warmup"),
    ({"lr": 1e39}, "lr"), ({"lr": 0.5, "weight_decay": 3.0}, "lr 0.5 times weight_decay 3 is more than 1"),
    ({"eps": 1e-30}, "eps"), ({"threads": 8589934592}, "threads"),
])  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_the_clipped_gradients_have_the_recipes_norm() -> None:
    """The memory of AdamW's first step is a tenth of them."""
    for clip, due in ((1e-3, 1e-3), (None, None)):
        updater = Updater(model(), recipe(clip=clip))
        update = updater.step(stacked([Counting(8, 0, 9)[3]]), 0)
        norm = torch.cat([state["exp_avg"].flatten() for state in updater.optimizer.state.values()]).norm().item() / 0.1
        assert norm == pytest.approx(update.norm if due is None else due, rel=1e-3)
        assert update.norm > 0.01


def test_a_finite_loss_with_infinite_gradients_is_not_learned_from() -> None:
    learner = model()
    before = weights(learner)
    learner.final_norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    updater = Updater(learner, recipe())
    update = updater.step(stacked([Counting(8, 0, 9)[3]]), 0)
    assert update.loss is not None
    assert math.isfinite(update.loss)
    assert not math.isfinite(update.norm)
    assert not update.taken
    assert_equal(weights(learner), before)
    assert not updater.optimizer.state


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_matrices_are_multiplied_in_the_recipes_precision(precision: str) -> None:
    learner, seen = model(), set()
    for module in learner.blocks.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, args, made: seen.add(made.dtype) if learner.training else None)
    train(learner, CountingData(), recipe(precision=precision, tokens=32))
    assert seen == {getattr(torch, precision)}


class AtWork(Watcher):
    """What is so while a run is under way."""

    def __init__(self, learner: llamazoo.Decoder) -> None:
        self.learner = learner
        self.threads: set[int] = set()
        self.compiled: set[bool] = set()

    def updated(self, step: int, update: Update, seconds: float) -> None:
        self.threads.add(torch.get_num_threads())
        self.compiled.add(hasattr(self.learner.core, "_torchdynamo_orig_callable"))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_has_the_threads_of_its_recipe_and_afterwards_all_is_as_it_was(threads: int) -> None:
    before, state, seen = torch.get_num_threads(), torch.get_rng_state(), AtWork(learner := model())
    train(learner, CountingData(), recipe(threads=threads, tokens=32), watchers=[seen])
    assert seen.threads == {threads}
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_kernels_are_afterwards_chosen_as_they_were() -> None:
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        with deterministic():
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_matrices_decay_and_neither_biases_nor_the_gains_of_norms() -> None:
    experts = {"type": "experts", "n_experts": 4, "top_k": 1, "hidden_dim": 8, "bias": True}
    learner = model(feed_forward=experts, norm="layernorm", attention={"type": "multihead", "qkv_bias": True, "qk_norm": "rmsnorm"})

    class Table(llamazoo.Norm):
        name = "table"

        def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
            super().__init__(options, site)
            self.weight = torch.nn.Parameter(torch.ones(2, 3))

    learner.extra = Table(Table.Options(), learner.spec.site())  # type: ignore[assignment]
    found = decayed(learner)
    stacked_biases = {name for name, p in learner.named_parameters() if name.endswith("bias") and p.ndim > 1}
    assert stacked_biases
    assert not found & stacked_biases
    assert "extra.weight" not in found
    for name, parameter in learner.named_parameters():
        if parameter.ndim > 1 and name != "extra.weight" and name not in stacked_biases:
            assert name in found, name
        if parameter.ndim < 2:
            assert name not in found, name
    groups = adamw(learner, recipe(weight_decay=0.5)).param_groups
    assert {(group["weight_decay"], len(group["params"])) for group in groups} >= {(0.5, len(found))}


@pytest.mark.parametrize(("share", "steps", "first"), [(0.07, 100, 7), (0.29, 100, 29), (0.05, 21, 2), (1e-7, 10, 1), (0.0, 9, 0)])
def test_a_share_of_the_steps_is_rounded_up_from_what_is_written(share: float, steps: int, first: int) -> None:
    given = recipe(tokens=32 * steps, warmup=share, schedule="constant", lr=1.0)
    assert next(step for step in range(steps) if given.learning_rate(step) == 1.0) == max(0, first - 1)
    assert given.share(share) == first


def test_a_correction_cannot_be_counted_in_a_compiled_model_and_that_is_said_before_the_first_step(tmp_path: Path) -> None:
    spec = {"feed_forward": {"type": "experts", "n_experts": 4, "top_k": 1, "hidden_dim": 8, "router": {"type": "grouped", "n_groups": 2}}}
    with pytest.raises(UnsupportedError, match=r"set train.compile: false, or the router's correction: false"):
        train(model(**spec), CountingData(), recipe(compile=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_in_half_precision_is_refused_with_what_to_do(tmp_path: Path) -> None:
    half = llamazoo.build_model(SPEC, overrides={"dtype": "bfloat16"}, device="cpu")
    message = r"is torch.bfloat16, .*; build the model with dtype=torch.float32, and set precision: bfloat16"
    with pytest.raises(TrainingError, match=message):
        train(half, CountingData(), recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert [training_dtype(model(dtype=name).spec) for name in ("float16", "bfloat16", "float32", "float64", None)] == [
        *[torch.float32] * 3, torch.float64, torch.float32,
    ]  # fmt: skip


def test_a_divided_model_is_not_trained_with_a_folder(tmp_path: Path) -> None:
    learner = model()
    learner.division = object()  # type: ignore[assignment]
    with pytest.raises(TrainingError, match="each process of a divided model would write its own part under one name"):
        train(learner, CountingData(), recipe(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", [2**64, -1])
def test_a_seed_that_is_none_is_refused(seed: int) -> None:
    with pytest.raises(DataError, match=f"the seed {seed} is not from 0"):
        train(model(), CountingData(), recipe(), seed=seed)


@pytest.mark.parametrize(("changes", "message"), [({"rows": 0}, "rows is a whole"), ({"rows": 2, "tokens": 0}, "tokens is a whole")])
def test_an_evaluation_of_nothing_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=f"{message} number from 1, found 0"):
        evaluate(model(), Counting(8, 5, 5), **changes)


def test_a_sigterm_while_watchers_end_is_heard() -> None:
    class Last(Watcher):
        def end(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        train(model(), CountingData(), recipe(tokens=32), watchers=[Last()])
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_highest_learning_rate_leaves_all_weights_finite() -> None:
    learner = model()
    update = Updater(learner, recipe(lr=1.0, weight_decay=1.0, warmup=0.0, clip=None)).step(stacked([Counting(8, 0, 9)[3]]), 0)
    assert update.taken
    assert all(bool((p.abs() < 3).all()) for p in learner.parameters())
