"""What a plan says that a model takes, against models that really run."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import llamazoo
from llamazoo.cli.main import app
from llamazoo.plan.gpus import GPUS, RESERVE, gpus_named
from llamazoo.plan.live import Live
from llamazoo.plan.measure import sample
from llamazoo.plan.need import Optimizer, Plan, Use
from llamazoo.spec.patch import merge
from llamazoo.testing import BASE

WINDOWS = merge(
    BASE,
    {
        "n_layers": 5,
        "max_seq_len": 64,
        "attention": {"type": "multihead", "window": 8},
        "layers": [{"every": 2, "offset": 1, "attention": {"window": None}}],
    },
)
SPECS: dict[str, Any] = {
    "plain": merge(BASE, {"n_layers": 3}),
    "windows": WINDOWS,
    "softcap": merge(BASE, {"n_layers": 2, "attention": {"softcap": 30.0}, "block": "sandwich", "head": {"tied": True}}),
    "parallel, learned": merge(BASE, {"n_layers": 2, "block": "parallel", "position": "learned", "feed_forward": "mlp"}),
    "experts": merge(
        BASE,
        {
            "n_layers": 3,
            "feed_forward": {"type": "experts", "n_experts": 4, "shared": "swiglu"},
            "layers": [{"at": 0, "feed_forward": "swiglu"}],
        },
    ),
    "alibi, two kinds": merge(BASE, {"n_layers": 4, "position": "alibi", "layers": [{"at": "0:2", "feed_forward": "mlp"}]}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_weights_and_cache_are_to_the_byte_what_a_model_has(name: str, dtype: torch.dtype) -> None:
    model = llamazoo.build_model(SPECS[name], dtype=dtype)
    found = sample(model.spec, dtype)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weight_bytes == sum(p.nbytes for p in model.parameters())
    state = model.new_state(3, 24, chunk=4)
    assert found.cache_bytes(3, 24, 4) == sum(layer.nbytes for layer in state.layers if layer is not None)
    assert found.flops(model.spec.max_seq_len // 2) == llamazoo.describe(model.spec, dtype).flops_per_token


def kept(model: llamazoo.Decoder, tokens: Tensor) -> int:
    """The bytes that autograd really keeps for a step of training, by where they lie, the weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.loss(tokens, tokens)
    assert loss.isfinite()
    return sum(tensor.untyped_storage().nbytes() for where, tensor in found.items() if where not in weights)


@pytest.mark.parametrize("name", SPECS)
def test_activations_are_what_autograd_really_keeps(name: str) -> None:
    model = llamazoo.build_model(SPECS[name])
    tokens = torch.randint(0, model.spec.vocab_size, (2, 16))
    real = kept(model, tokens)
    found = sample(model.spec, torch.float32).training(2, 16)
    assert abs(found.kept - real) <= 0.03 * real
    assert 0 < found.logits < found.kept < found.peak


def test_the_most_at_once_is_what_a_real_step_holds() -> None:
    model = llamazoo.build_model(merge(BASE, {"n_layers": 6, "dim": 64, "hidden_dim": 256, "n_heads": 4, "n_kv_heads": 4, "head_dim": 16}))
    tokens = torch.randint(0, model.spec.vocab_size, (4, 32))
    model.loss(tokens, tokens).backward()
    known = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None), tokens]
    with Live(known) as live:
        model.loss(tokens, tokens).backward()
    found = sample(model.spec, torch.float32).training(4, 32)
    assert abs(found.peak - live.peak) <= 0.05 * live.peak


def test_a_prompt_holds_what_a_real_one_holds() -> None:
    model = llamazoo.build_model(WINDOWS).eval()
    state = model.new_state(2, 64, chunk=16)
    model(torch.zeros(2, 48, dtype=torch.int64), state=state)
    known = [*model.parameters(), *model.buffers(), *(t for s in state.layers for t in (s.keys, s.values))]
    with Live(known) as live:
        model(torch.zeros(2, 16, dtype=torch.int64), state=state, last_only=True)
    found = sample(model.spec, torch.float32).prefill_peak(2, 64, 16)
    assert abs(found - live.peak) <= 0.1 * live.peak


def test_live_counts_what_lives_once() -> None:
    old = torch.zeros(100)
    with Live([old]) as live:
        a = old + 1
        assert live.now == 400
        b = a.view(10, 10) * 2
        assert live.now == 800
        del a
        assert live.now == 400
        old.add_(1)
        del b
    assert (live.now, live.peak) == (0, 800)


def test_checkpointing_keeps_what_enters_each_layer() -> None:
    spec = llamazoo.load_spec(merge(BASE, {"n_layers": 40}))
    found = sample(spec, torch.float32)
    plain, less = found.training(2, 16), found.training(2, 16, checkpointing=True)
    assert less.kept < plain.kept
    assert less.peak < plain.peak
    entering = 40 * 2 * 16 * spec.dim * 4
    outside = less.kept - entering
    assert 0 < outside < entering
    more = sample(llamazoo.load_spec(merge(BASE, {"n_layers": 41})), torch.float32).training(2, 16, checkpointing=True)
    assert more.kept - less.kept == 2 * 16 * spec.dim * 4


def test_each_of_several_gpus_has_its_share() -> None:
    spec = llamazoo.load_spec("llama-7b")
    whole, part = sample(spec, torch.bfloat16), sample(spec, torch.bfloat16, 4)
    norms = (2 * spec.n_layers + 1) * spec.dim * 2  # which every process has whole
    assert 4 * part.weight_bytes == whole.weight_bytes + 3 * norms
    assert 4 * part.cache_bytes(2, 128, 64) == whole.cache_bytes(2, 128, 64)
    assert part.training(1, 64).kept < whole.training(1, 64).kept


def test_training_needs_gradients_states_and_master_weights() -> None:
    spec = llamazoo.load_spec("smollm2-135m")
    n = llamazoo.describe(spec).parameters
    half = Plan(spec, Use(128, train=True)).need(1)
    assert (half.weights, half.gradients, half.optimizer, half.master, half.cache) == (2 * n, 2 * n, 8 * n, 4 * n, 0)
    single = Plan(spec, Use(128, train=True, dtype=torch.float32, optimizer=Optimizer.SGD)).need(1)
    assert (single.weights, single.gradients, single.optimizer, single.master) == (4 * n, 4 * n, 4 * n, 0)
    running = Plan(spec, Use(128)).need(1)
    assert (running.gradients, running.optimizer, running.master) == (0, 0, 0)
    assert running.total == running.weights + running.cache + (running.activations or 0)


def test_operations_of_a_row_are_their_mean_over_its_tokens() -> None:
    spec = llamazoo.load_spec(WINDOWS)
    plan = Plan(spec, Use(64, dtype=torch.float32, train=True))
    exact = sum(plan.whole.flops(seen) for seen in range(64)) / 64
    assert plan.flops_per_token == pytest.approx(exact, rel=0.01)
    assert plan.flops_per_step == pytest.approx(3 * 64 * plan.flops_per_token)
    again = Plan(spec, Use(64, dtype=torch.float32, train=True, checkpointing=True))
    assert again.flops_per_step == pytest.approx(4 * 64 * plan.flops_per_token)


def test_a_gpu_fits_exactly_if_all_that_is_needed_fits() -> None:
    plan = Plan(llamazoo.load_spec("llama-7b"), Use(2048))
    fits = {fit.gpu.name: fit for fit in map(plan.fit, GPUS)}
    for fit in fits.values():
        assert fit.need is not None
        assert fit.need.total <= fit.gpu.memory - RESERVE
        smaller = [n for n in plan.sizes() if n < fit.need.gpus]
        assert all(plan.need(n).total > fit.gpu.memory - RESERVE for n in smaller)
    assert fits["A100 80GB"].need is not None
    assert fits["A100 80GB"].need.gpus == 1
    assert fits["A100 80GB"].tokens_per_second == pytest.approx(2039e9 / fits["A100 80GB"].need.read)
    assert fits["T4"].tokens_per_second is None, "it has no bfloat16"


def test_what_does_not_fit_is_told() -> None:
    fit = Plan(llamazoo.load_spec("llama-2-70b"), Use(4096, train=True)).fit(GPUS[0])
    assert (fit.need, fit.step_seconds) == (None, None)


def test_a_tied_table_is_read_in_each_step_and_another_is_not() -> None:
    untied, tied = (sample(llamazoo.load_spec(merge(BASE, {"head": {"tied": t}})), torch.float32) for t in (False, True))
    table = 4 * BASE["vocab_size"] * BASE["dim"]
    assert untied.read_bytes == untied.weight_bytes - table
    assert tied.read_bytes == tied.weight_bytes


def test_of_experts_a_step_reads_those_that_are_chosen() -> None:
    spec = llamazoo.load_spec(SPECS["experts"])
    found, told = sample(spec, torch.float32), llamazoo.describe(spec, torch.float32)
    table = 4 * BASE["vocab_size"] * BASE["dim"]
    assert found.read_bytes == 4 * told.active_parameters - table
    assert Plan(spec, Use(16)).need(1).activations is not None


def test_gpus_are_known_by_the_beginning_of_their_names() -> None:
    assert gpus_named(None) == GPUS
    assert [gpu.name for gpu in gpus_named("a100, 4090")] == ["A100 40GB", "A100 80GB", "RTX 4090"]
    assert [gpu.name for gpu in gpus_named("L4")] == ["L4"]
    with pytest.raises(llamazoo.InputError, match="no GPU named 'H1000' is known here; did you mean 'H100'"):
        gpus_named("H1000")
    with pytest.raises(llamazoo.InputError, match="known: T4, L4"):
        gpus_named("")


class Looking(llamazoo.Norm):
    """x, unless a value says otherwise."""

    name = "looking"

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


def test_a_part_that_looks_at_values_leaves_activations_unknown() -> None:
    registry = llamazoo.default_registry().extended(Looking)
    plan = Plan(llamazoo.load_spec(merge(BASE, {"norm": "looking"}), registry=registry), Use(16))
    assert plan.need(1).activations is None
    assert plan.unmeasured is not None
    assert "looks at values" in plan.unmeasured


# The command


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


def test_plan_tells_needs_and_gpus() -> None:
    result = run("plan", "llama-7b", "--gpus", "H100", "--batch", 2)
    assert result.exit_code == 0, result.output
    for told in ("2 rows of 2048 tokens, in bfloat16", "13.48 GB", "H100", "tokens a second, at most"):
        assert told in result.stdout


def test_plan_of_training_tells_both_ways_to_keep_activations() -> None:
    result = run("plan", "smollm2-135m", "--context", 256, "--train", "--gpus", "T4,H100")
    assert result.exit_code == 0, result.output
    for told in ("master weights", "at most without", "with checkpointing", "seconds a step, at least"):
        assert told in result.stdout


def test_plan_as_json_adds_up() -> None:
    result = run("plan", "smollm2-135m", "--context", 256, "--train", "--json", "--dtype", "float32")
    found = json.loads(result.stdout)
    assert found["use"]["dtype"] == "float32"
    assert found["parameters"] == 134_515_008
    parts = ("weights", "cache", "gradients", "optimizer", "master", "activations")
    assert found["bytes"]["total"] == sum(found["bytes"][part] for part in parts)
    assert found["training"]["plain"]["peak"] == found["bytes"]["activations"]
    assert len(found["gpus"]) == len(GPUS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--context", "4096"], "rows of 4096 tokens are longer than the model's context, max_seq_len 2048"),
        (["--batch", "0"], "batch is a whole number from 1, found 0"),
        (["--chunk", "-1"], "chunk is a whole number from 1, found -1"),
        (["--gpus", "abacus"], "no GPU named 'abacus' is known here"),
    ],
)
def test_plan_refuses_what_cannot_be(options: list[str], message: str) -> None:
    result = run("plan", "llama-7b", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_python_m_llamazoo_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "llamazoo", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Usage: llamazoo" in done.stdout
    wrong = subprocess.run([sys.executable, "-m", "llamazoo", "show", "lama-7b"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
