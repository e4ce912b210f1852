"""Mixtures of experts: what they compute, what they lose, how they are counted, and what they cost.

b batch, t tokens, d model width, f width of an expert, n experts, c of them chosen.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import llamazoo
from llamazoo.testing import BASE, failures, subject, told

DIM, WIDTH = BASE["dim"], BASE["hidden_dim"]


def model_of(around: dict[str, Any] | None = None, **options: Any) -> llamazoo.Decoder:
    """The tiny model with experts, with values far from the first ones."""
    spec = {**BASE, "feed_forward": {"type": "experts", **options}, **(around or {})}
    model = llamazoo.build_model(spec, dtype=torch.float64, device="cpu").eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def experts_of(**options: Any) -> Any:
    return model_of(**options).blocks[0].feed_forward


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_of(batch: int, tokens: int, **changes: Any) -> llamazoo.Step:
    step = llamazoo.Step.even(batch, tokens, start=0, horizon=64, device=torch.device("cpu"))
    for name, value in changes.items():
        setattr(step, name, value)
    return step


def close(found: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# What they compute


def every_expert(part: Any, x: Tensor) -> Tensor:
    """The slow way: every expert computes every token, and what was not chosen is weighted by zero. [b t d] -> [b t d]"""
    options = part.options
    routing = part.router(x, step_of(*x.shape[:2]))
    weights = torch.zeros(*x.shape[:2], options.n_experts, dtype=x.dtype).scatter(-1, routing.experts, routing.weights)
    gate, up = (torch.einsum("btd,nfd->btnf", x, w) for w in (part.gate, part.up))
    if options.bias:
        gate, up = gate + part.gate_bias, up + part.up_bias
    if options.limit is not None:
        gate, up = gate.clamp(max=options.limit), up.clamp(-options.limit, options.limit)
    y = torch.einsum("btnf,ndf->btnd", part.activation(gate) * (up + options.up_offset), part.down)
    y = y + part.down_bias if options.bias else y
    return (y * weights[..., None]).sum(2) + (part.shared(x, None) if part.shared is not None else 0)


CASES: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "one of three": {"n_experts": 3, "top_k": 1},
    "all of them": {"n_experts": 4, "top_k": 4},
    "more experts than tokens": {"n_experts": 64, "top_k": 3},
    "gpt-oss": {"router": {"type": "topk", "bias": True}, "bias": True, "limit": 0.7, "up_offset": 1.0, "activation": "swish"},
    "not normalised": {"router": {"type": "topk", "normalize": False, "scale": 2.0}, "activation": "gelu"},
    "DeepSeek-V2": {"router": {"type": "grouped", "scoring": "softmax", "n_groups": 4, "top_groups": 2, "group_score": "max"}},
    "DeepSeek-V3": {"router": {"type": "grouped", "n_groups": 2, "scale": 2.5}, "shared": {"type": "swiglu", "hidden_dim": 7}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_chosen_experts_compute_what_all_would_and_so_do_the_gradients(case: str) -> None:
    part, x = experts_of(**CASES[case]), drawn(2, 11, DIM).requires_grad_()
    slope, parameters = drawn(2, 11, DIM, seed=1), [p for p in part.parameters() if p.requires_grad]
    found, expected = part(x, step_of(2, 11)), every_expert(part, x)
    close(found, expected)
    pairs = zip(*(torch.autograd.grad((y * slope).sum(), [x, *parameters]) for y in (found, expected)), strict=True)
    for one, other in pairs:
        close(one, other)
    with torch.no_grad():
        close(part(x, step_of(2, 11)), expected)
        close(torch.cat([part(x[:, i : i + 1], step_of(2, 1)) for i in range(11)], 1), expected)


def test_only_the_chosen_experts_are_read() -> None:
    part, x = experts_of(n_experts=8, top_k=2), drawn(1, 1, DIM)
    expected = part(x, step_of(1, 1))
    chosen = set(part.router(x, step_of(1, 1)).experts.flatten().tolist())
    with torch.no_grad():
        for i in set(range(8)) - chosen:
            for weight in (part.gate, part.up, part.down):
                weight[i] = math.nan
    assert torch.equal(part(x, step_of(1, 1)), expected)


def test_grouped_products_have_second_derivatives_and_empty_groups() -> None:
    ends = llamazoo.grouped_ends(torch.tensor([1, 1, 1, 3]), 5)
    assert ends.tolist() == [0, 3, 3, 4, 4]
    x, weight = drawn(4, 3).requires_grad_(), drawn(5, 2, 3, seed=1).requires_grad_()
    close(llamazoo.grouped_linear(x, weight, ends), torch.stack([weight[g] @ x[i] for i, g in enumerate((1, 1, 1, 3))]))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda a, b: llamazoo.grouped_linear(a, b, ends), (x, weight))


def test_the_memory_of_a_large_gradient_is_used_again_while_the_model_trains() -> None:
    spare, like = llamazoo.Spare(), torch.empty(0)
    assert spare.empty((4, 4), like).shape == (4, 4)
    large = (1 << 12, 1 << 11)
    places = set()
    for _ in range(3):
        view = spare.empty(large, like)[3:].detach()  # whoever holds some of it holds all of it
        other = spare.empty(large, like)
        assert other.untyped_storage().data_ptr() != view.untyped_storage().data_ptr()
        places.add(view.untyped_storage().data_ptr())
        del other, view
    assert len(places) <= 2
    assert spare._free is not None
    assert copy.deepcopy(spare)._free is None
    held = spare.empty(large, like)
    spare.keep(False)
    del held
    assert spare._free is None


def test_large_gradients_in_lent_memory_are_right_and_accumulate() -> None:
    ends = llamazoo.grouped_ends(torch.tensor([0, 0, 2, 2, 2]), 4)
    weight, spare = torch.randn(4, 2048, 2048).requires_grad_(), llamazoo.Spare()
    x = torch.randn(5, 2048)
    slopes = []
    for lent in (spare, spare, None):
        weight.grad = None
        llamazoo.grouped_linear(x, weight, ends, lent).square().sum().backward()
        llamazoo.grouped_linear(x, weight, ends, lent).sum().backward()
        slopes.append(weight.grad.clone())
    assert torch.equal(slopes[0], slopes[2])
    assert torch.equal(slopes[1], slopes[2])
    assert not slopes[0][[1, 3]].any()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_products_on_a_gpu_are_those_of_the_cpu(dtype: torch.dtype) -> None:
    groups = torch.randint(0, 6, (40,), generator=torch.Generator().manual_seed(0)).sort().values
    x, weight = drawn(40, 32).to(dtype), drawn(6, 16, 32, seed=1).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        a, b = (each.to(device).requires_grad_() for each in (x, weight))
        y = llamazoo.grouped_linear(a, b, llamazoo.grouped_ends(groups.to(device), 6))
        results.append([each.cpu() for each in (y.detach(), *torch.autograd.grad(y.square().sum(), (a, b)))])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-1 if dtype == torch.bfloat16 else 1e-3)


# Against transformers


def paired(part: Any, theirs: nn.Module, names: dict[str, Callable[[Any], Tensor]]) -> None:
    """Give another's block our values, and compare."""
    parameters = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}
    assert set(names) == set(parameters)
    with torch.no_grad():
        for name, value in names.items():
            assert parameters[name].shape == value(part).shape, name
            parameters[name].copy_(value(part))
        x = drawn(2, 9, DIM, seed=3)
        found = theirs(x)
        expected = found[0] if isinstance(found, tuple) else found
        # They compute the router's logits, or their softmax, in float32, whatever comes in.
        close(part(x, step_of(2, 9)), expected, atol=1e-6 * float(expected.abs().max()))


def fused(p: Any) -> Tensor:
    return torch.cat((p.gate, p.up), 1)


PLAIN = {
    "gate.weight": lambda p: p.router.weight,
    "experts.gate_up_proj": fused,
    "experts.down_proj": lambda p: p.down,
}
SHARED = {f"shared_experts.{name}_proj.weight": lambda p, name=name: getattr(p.shared, name).weight for name in ("gate", "up", "down")}


def config(kind: Any, **fields: Any) -> Any:
    made = kind(hidden_size=DIM, num_experts_per_tok=2, num_attention_heads=4, num_key_value_heads=4, **fields)
    made._experts_implementation = "eager"
    return made


def test_mixtral_agrees_with_transformers() -> None:
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral", reason="needs transformers")
    theirs = mixtral.MixtralSparseMoeBlock(config(mixtral.MixtralConfig, intermediate_size=WIDTH, num_local_experts=8)).double()
    paired(experts_of(), theirs, PLAIN)


@pytest.mark.parametrize("normalize", [False, True])
def test_qwen3_moe_agrees_with_transformers(normalize: bool) -> None:
    qwen = pytest.importorskip("transformers.models.qwen3_moe.modeling_qwen3_moe", reason="needs transformers")
    fields = {"moe_intermediate_size": 12, "num_experts": 6, "norm_topk_prob": normalize}
    theirs = qwen.Qwen3MoeSparseMoeBlock(config(qwen.Qwen3MoeConfig, **fields)).double()
    paired(experts_of(n_experts=6, hidden_dim=12, router={"type": "topk", "normalize": normalize}), theirs, PLAIN)


def test_gpt_oss_agrees_with_transformers() -> None:
    oss = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss", reason="needs transformers")
    settings = config(oss.GptOssConfig, intermediate_size=WIDTH, num_local_experts=8)
    settings.swiglu_limit, settings.swiglu_alpha = 0.9, 1.702
    theirs = oss.GptOssMLP(settings).double()
    part = experts_of(
        router={"type": "topk", "bias": True}, bias=True, limit=0.9, up_offset=1.0, activation={"type": "swish", "beta": 1.702}
    )
    names = {
        "router.weight": lambda p: p.router.weight,
        "router.bias": lambda p: p.router.bias,
        "experts.gate_up_proj": lambda p: torch.stack((p.gate, p.up), 2).flatten(1, 2).transpose(1, 2),  # interleaved, inputs first
        "experts.gate_up_proj_bias": lambda p: torch.stack((p.gate_bias, p.up_bias), 2).flatten(1),
        "experts.down_proj": lambda p: p.down.transpose(1, 2),
        "experts.down_proj_bias": lambda p: p.down_bias,
    }
    paired(part, theirs, names)


def test_deepseek_v3_agrees_with_transformers() -> None:
    v3 = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3", reason="needs transformers")
    fields = {"n_routed_experts": 8, "n_shared_experts": 2, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}
    theirs = v3.DeepseekV3MoE(config(v3.DeepseekV3Config, moe_intermediate_size=10, **fields)).double()
    router = {"type": "grouped", "n_groups": 4, "top_groups": 2, "scale": 2.5}
    part = experts_of(hidden_dim=10, router=router, shared={"type": "swiglu", "hidden_dim": 20})
    paired(part, theirs, {**PLAIN, **SHARED, "gate.e_score_correction_bias": lambda p: p.router.correction})


@pytest.mark.parametrize("method", ["greedy", "group_limited_greedy"])
def test_deepseek_v2_agrees_with_transformers(method: str) -> None:
    v2 = pytest.importorskip("transformers.models.deepseek_v2.modeling_deepseek_v2", reason="needs transformers")
    fields = {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 4, "topk_group": 1, "routed_scaling_factor": 16.0}
    theirs = v2.DeepseekV2Moe(config(v2.DeepseekV2Config, moe_intermediate_size=10, topk_method=method, **fields)).double()
    grouped = {"type": "grouped", "scoring": "softmax", "n_groups": 4, "group_score": "max", "correction": False, "normalize": False}
    router = {**grouped, "scale": 16.0} if method != "greedy" else {"type": "topk", "normalize": False, "scale": 16.0}
    paired(experts_of(hidden_dim=10, router=router, shared={"type": "swiglu", "hidden_dim": 10}), theirs, {**PLAIN, **SHARED})


# The contract, beside what tests/test_conformance.py tries of every part


@pytest.mark.parametrize("case", [case for case in CASES if case != "mixtral"])
def test_mixtures_keep_the_contract_with_every_router(case: str) -> None:
    experts = llamazoo.default_registry().find("feed_forward", "experts").component
    checks = ["dtypes", "causality", "cached", "padding", "gradients", "splits", "round_trip", "determinism"]
    found = failures(subject(experts, {**CASES[case], "balance": 0.1, "sequence_balance": 0.1, "z_loss": 0.01}), checks)
    assert found == [], told(found)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too many": ({"top_k": 9}, r"feed_forward\.top_k: a token cannot be sent to 9 of 8 experts"),
    "uneven groups": (
        {"router": {"type": "grouped", "n_groups": 3}},
        r"router\.n_groups: 8 experts .* do not stand in 3 groups",
    ),
    "groups": ({"router": {"type": "grouped", "n_groups": 2, "top_groups": 3}}, r"router\.top_groups: 3 groups cannot be chosen of 2"),
    "narrow groups": (
        {"top_k": 3, "router": {"type": "grouped", "n_groups": 4}},
        r"router\.top_groups: 1 groups of 2 experts hold fewer than the 3",
    ),
    "alone": ({"router": {"type": "grouped", "n_groups": 8, "top_groups": 2}}, r"router\.group_score: groups of one expert have no two"),
    "nonsense": ({"router": "swiglu"}, r"feed_forward\.router: no router named 'swiglu'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_while_the_spec_is_read(case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(llamazoo.SpecError, match=message):
        llamazoo.load_spec({**BASE, "feed_forward": {"type": "experts", **options}})


def test_experts_without_a_width_are_refused() -> None:
    with pytest.raises(llamazoo.SpecError, match=r"feed_forward\.hidden_dim: an expert needs a width"):
        llamazoo.load_spec({**BASE, "hidden_dim": None, "feed_forward": "experts"})


class ByPlace(llamazoo.Router):
    """Sends a token to the expert of its place in the row: nothing is learned. Roller et al. 2021, in spirit."""

    name = "by_place"
    learned = False

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.top_k = 1

    def forward(self, x: Tensor, step: llamazoo.Step) -> llamazoo.Routing:
        experts = (step.positions % self.n_experts)[..., None]
        return llamazoo.Routing(experts, torch.ones_like(experts, dtype=llamazoo.at_least_float32(x.dtype)))


def test_a_strangers_router_is_grouped_counted_and_checked_like_any() -> None:
    registry = llamazoo.default_registry().extended(ByPlace)
    found = failures(subject(ByPlace, registry=registry))
    assert found == [], told(found)
    spec = llamazoo.load_spec({**BASE, "feed_forward": {"type": "experts", "n_experts": 4, "router": "by_place"}}, registry=registry)
    model = llamazoo.build_model(spec, device="cpu", registry=registry)
    with llamazoo.expert_load(model) as load:
        model(torch.arange(20).view(2, 10))
    assert [counts.tolist() for counts in load.counts.values()] == [[6, 6, 4, 4]] * 2
    described = llamazoo.describe(spec)
    assert described.parameters - described.active_parameters == 2 * 3 * 3 * DIM * WIDTH  # three of four experts, in two layers
    with pytest.raises(llamazoo.SpecError, match=r"feed_forward\.balance: the router .*by_place gives no logits"):
        llamazoo.load_spec(spec, {"feed_forward.balance": 0.1}, registry=registry)


# Losses and loads


def losses_of(part: Any, x: Tensor, **changes: Any) -> dict[str, Tensor]:
    losses = llamazoo.Losses()
    part(x, step_of(*x.shape[:2], losses=losses, **changes))
    return losses.take()


def test_the_balance_loss_is_that_of_its_equation() -> None:
    part, x = experts_of(balance=0.5, sequence_balance=0.25, z_loss=2.0), drawn(2, 7, DIM)
    logits = x @ part.router.weight.detach().T
    scores, chosen = logits.softmax(-1), logits.topk(2).indices
    expected, rows = 0.0, [0.0, 0.0]
    for i in range(8):
        expected += 8 * float((chosen == i).sum()) / 28 * float(scores[..., i].mean())
        rows = [sum_ + 8 * float((chosen[r] == i).sum()) / 14 * float(scores[r, :, i].mean()) for r, sum_ in enumerate(rows)]
    found = losses_of(part, x)
    assert list(found) == [f"{name} of layer 0" for name in ("balance", "sequence balance", "z-loss")]
    values = [0.5 * expected, 0.25 * sum(rows) / 2, 2.0 * float(logits.exp().sum(-1).log().square().mean())]
    close(torch.stack(list(found.values())).detach(), torch.tensor(values, dtype=torch.float64))


def test_the_balance_loss_of_an_even_load_is_one_with_any_scoring() -> None:
    for router in ("topk", "grouped"):
        part = experts_of(balance=1.0, router=router)
        with torch.no_grad():
            part.router.weight.copy_(3 * torch.eye(8, DIM, dtype=torch.float64))
            if part.router.correction is not None:
                part.router.correction.zero_()
        x = torch.zeros(1, 8, DIM, dtype=torch.float64)
        for i in range(8):
            x[0, i, i], x[0, i, (i + 1) % 8] = 2.0, 1.0
        close(*losses_of(part, x).values(), torch.tensor(1.0, dtype=torch.float64))


def test_padding_enters_neither_losses_nor_counts() -> None:
    part, x = experts_of(balance=1.0, sequence_balance=1.0, z_loss=1.0), drawn(2, 7, DIM)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[0, 4:] = False
    other = x.masked_fill(~valid[..., None], 9.0)
    for one, two in zip(losses_of(part, x, valid=valid).values(), losses_of(part, other, valid=valid).values(), strict=True):
        close(one, two)
    alone = [losses_of(part, x[:1, :4]), losses_of(part, x[1:])]
    found = losses_of(part, x, valid=valid)
    close(found["sequence balance of layer 0"], sum(each["sequence balance of layer 0"] for each in alone) / 2)
    close(found["z-loss of layer 0"], (4 * alone[0]["z-loss of layer 0"] + 7 * alone[1]["z-loss of layer 0"]) / 11)
    with llamazoo.expert_load(part) as load:
        part(x, step_of(2, 7, valid=valid))
    assert int(load.counts["router"].sum()) == 2 * 11


def test_the_model_adds_its_layers_losses_also_where_layers_are_recomputed() -> None:
    tokens = torch.arange(24).view(2, 12)
    plain, balanced = model_of(), model_of(balance=0.3, shared={"type": "experts", "balance": 0.7, "hidden_dim": WIDTH})
    assert not any(p.grad is not None for p in plain.parameters())
    losses = llamazoo.Losses()
    losses.add("a", torch.tensor(1.0), plain)
    losses.add("a", torch.tensor(2.0), balanced)
    losses.add("a", torch.tensor(3.0), plain)
    assert losses.take() == {"a": torch.tensor(3.0), "a (2)": torch.tensor(2.0)}
    without = model_of(shared={"type": "experts", "hidden_dim": WIDTH})
    assert balanced.train().loss(tokens) > without.train().loss(tokens) + 2 * (0.3 + 0.7) * 0.9
    slopes = []
    for recomputed in (False, True):
        model = model_of(balance=0.3, z_loss=0.1).train()
        if recomputed:
            for block in model.blocks:
                forward = block.forward
                block.forward = lambda *args, forward=forward: checkpoint(forward, *args, use_reentrant=False)
        model.loss(tokens).backward()
        slopes.append([p.grad for p in model.parameters()])
    for one, other in zip(*slopes, strict=True):
        close(one, other)


def test_loads_are_counted_by_layer_while_somebody_asks() -> None:
    model, tokens = model_of(n_experts=4, router="grouped"), torch.arange(24)[None]
    with llamazoo.expert_load(model) as load:
        model(tokens)
        model(tokens)
    model(tokens)
    assert list(load.counts) == ["blocks.0.feed_forward.router", "blocks.1.feed_forward.router"]
    for path, counts in load.counts.items():
        assert int(counts.sum()) == 2 * 2 * 24
        shares = counts / counts.sum()
        assert load.max_share()[path] == pytest.approx(float(shares.max()))
        assert load.entropy()[path] == pytest.approx(-sum(float(p) * math.log(p) for p in shares if p))
    assert not any(module._forward_hooks for module in model.modules())
    with (
        pytest.raises(llamazoo.InputError, match="a compiled model does not tell"),
        llamazoo.expert_load(torch.compile(model, backend="eager")),
    ):
        pass


def test_a_correction_evens_the_load_and_is_neither_learned_nor_weighed() -> None:
    model, tokens = model_of(n_experts=4, top_k=1, router="grouped", around={"n_layers": 1}), torch.randint(0, 37, (8, 32))
    router: Any = model.blocks[0].feed_forward.router
    with torch.no_grad():
        router.correction.copy_(torch.tensor([2.0, 0.0, 0.0, 0.0]))
    worst = []
    for _ in range(60):
        with llamazoo.expert_load(model) as load:
            model(tokens)
        worst.append(load.max_share()["blocks.0.feed_forward.router"])
        llamazoo.correct_load(model, load, rate=0.05)
    assert worst[0] == 1.0
    assert worst[-1] < 0.5
    assert not router.correction.requires_grad
    x = drawn(1, 3, DIM)
    routing = router(x, step_of(1, 3))
    close(routing.weights, torch.ones_like(routing.weights))  # one score over itself, whatever the correction


def test_what_is_described_counts_the_chosen_experts_alone() -> None:
    spec = {**BASE, "feed_forward": {"type": "experts", "n_experts": 8, "top_k": 2, "shared": "swiglu", "bias": True}}
    found, more = (
        llamazoo.describe(spec := llamazoo.load_spec(spec)),
        llamazoo.describe(llamazoo.load_spec(spec, {"feed_forward.n_experts": 16})),
    )
    one = 3 * DIM * WIDTH + 2 * WIDTH + DIM
    assert found.parameters == sum(p.numel() for p in llamazoo.build_model(spec, device="cpu").parameters())
    assert found.parameters - found.active_parameters == 2 * 6 * one
    assert more.active_parameters - found.active_parameters == 2 * 8 * DIM  # the router's rows
    assert more.flops_per_token - found.flops_per_token == 2 * 2 * 8 * DIM
    dense = llamazoo.describe(llamazoo.load_spec(BASE))
    assert found.flops_per_token - dense.flops_per_token == 2 * (2 * 2 * 3 * DIM * WIDTH + 2 * 8 * DIM)


def test_half_precision_chooses_by_logits_in_float32() -> None:
    part = experts_of().to(torch.bfloat16)
    routing = part.router(drawn(2, 5, DIM).bfloat16(), step_of(2, 5))
    assert (routing.logits.dtype, routing.weights.dtype, routing.experts.dtype) == (torch.float32, torch.float32, torch.int64)
    close(routing.logits, F.linear(drawn(2, 5, DIM).bfloat16().float(), part.router.weight.float()))


def test_a_correction_stays_exact_in_a_half_precision_model(tmp_path: Path) -> None:
    spec = {"extends": "llama-tiny", "n_layers": 1, "feed_forward": {"type": "experts", "n_experts": 4, "router": "grouped"}}
    model = llamazoo.build_model(spec, dtype=torch.bfloat16)
    correction = model.get_parameter("blocks.0.feed_forward.router.correction")
    assert correction.dtype == torch.float32
    assert model.get_parameter("blocks.0.feed_forward.router.weight").dtype == torch.bfloat16
    correction.data.copy_(torch.tensor([1.0, 1.001, 1.002, 1.003]))
    llamazoo.save_model(model, tmp_path / "model")
    for other in (llamazoo.load_model(tmp_path / "model"), llamazoo.load_model(tmp_path / "model", dtype=torch.float64).bfloat16()):
        kept = other.get_parameter("blocks.0.feed_forward.router.correction")
        assert torch.equal(kept.float(), correction)
        assert not kept.requires_grad
    assert model.to(torch.float16).get_parameter("blocks.0.feed_forward.router.correction") is correction
    assert torch.equal(correction, torch.tensor([1.0, 1.001, 1.002, 1.003]))
    assert model.double().get_parameter("blocks.0.feed_forward.router.correction").dtype == torch.float64


def test_auxiliary_losses_belong_to_training_alone() -> None:
    spec = {"extends": "llama-tiny", "n_layers": 1, "feed_forward": {"type": "experts", "n_experts": 4, "balance": 1.0}}
    model = llamazoo.build_model(spec)
    tokens = torch.arange(12)[None]
    alone = F.cross_entropy(model(tokens)[0, :-1], tokens[0, 1:])
    assert torch.allclose(model.eval().loss(tokens), alone)
    assert model.train().loss(tokens) > alone + 0.9
