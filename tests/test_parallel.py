"""A model divided among processes computes what one process computes: forward, cached, and every gradient."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

import llamazoo
from llamazoo.build import build_model
from llamazoo.parallel.tensor import divide
from llamazoo.testing import BASE
from llamazoo.testing.ranks import run_ranks
from llamazoo.testing.threads import ThreadShare, run_threads

CLOSE = 1e-10


def spec_of(around: dict[str, Any], *components: type[llamazoo.Component]) -> llamazoo.ArchitectureSpec:
    return llamazoo.load_spec(BASE, around, registry=llamazoo.default_registry().extended(*components))


def tokens_of(batch: int = 2, length: int = 24) -> Tensor:
    return torch.randint(0, BASE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(1))


def results(model: llamazoo.Decoder) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits in one call, logits in many calls, and all gradients, whole."""
    tokens = tokens_of()
    model.loss(tokens).backward()
    with torch.no_grad():
        logits = model(tokens)
        state = model.new_state(2, 30, chunk=4)
        pieces = [model(piece, state=state) for piece in tokens.split([5, 1, 1, 12, 5], 1)]
    division = model.division
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    whole = {name: grad.clone() if division is None else division.whole(name, grad).clone() for name, grad in grads.items()}
    return logits, torch.cat(pieces, 1), whole


def double(spec: llamazoo.ArchitectureSpec) -> llamazoo.Decoder:
    return build_model(spec, dtype=torch.float64, device="cpu")


def assert_divided_equals_whole(spec: llamazoo.ArchitectureSpec, size: int = 2) -> None:
    one = double(spec)
    expected = results(one)

    def work(share: ThreadShare) -> Any:
        model = double(spec)
        divide(model, share)
        return results(model)

    for logits, cached, grads in run_threads(size, work):
        torch.testing.assert_close(logits, expected[0], rtol=0, atol=CLOSE)
        torch.testing.assert_close(cached, expected[0], rtol=0, atol=CLOSE)
        assert grads.keys() == expected[2].keys()
        for name, grad in grads.items():
            torch.testing.assert_close(grad, expected[2][name], rtol=0, atol=CLOSE, msg=lambda told, name=name: f"{name}: {told}")


class FusedAttention(llamazoo.Attention):
    """Grouped queries from one projection: a single unit would cut a key's head in two."""

    name = "fused"
    honours = frozenset({"rotate", "bias"})

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.e = site.head_dim
        self.sizes = [site.n_heads * self.e, site.n_kv_heads * self.e, site.n_kv_heads * self.e]
        self.qkv = nn.Linear(site.dim, sum(self.sizes))
        self.o = nn.Linear(self.sizes[0], site.dim)

    def forward(self, x: Tensor, step: llamazoo.Step, state: Any) -> Tensor:
        b, t, _ = x.shape
        qkv = self.qkv(x)
        widths = [size * qkv.shape[-1] // sum(self.sizes) for size in self.sizes]
        q, k, v = (part.view(b, t, -1, self.e).transpose(1, 2) for part in qkv.split(widths, -1))
        q, k = self.place.rotate(q, k, step)
        visible = llamazoo.Visible(step)
        if state is not None:
            k, v, visible = state.extend(k, v, step)
        bias = self.place.bias(visible)
        mask = visible.mask() if bias is None else bias.masked_fill(~visible.mask(), -torch.inf)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> llamazoo.KeyValueState:
        heads = self.qkv.weight.shape[0] * self.sizes[1] // sum(self.sizes) // self.e
        return llamazoo.KeyValueState(batch, capacity, heads, self.e, window=None, chunk=chunk, device=device, dtype=dtype)

    def splits(self) -> dict[str, llamazoo.Column | llamazoo.Row]:
        return {"qkv": llamazoo.Column((self.e, self.e, self.e), self.sizes), "o": llamazoo.Row(self.e)}


class LatentAttention(llamazoo.Attention):
    """Keys and values from a small latent that all heads share, with a rotary key that they share too (no cache here)."""

    name = "shares_a_latent"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.e, self.r, h = site.head_dim, 4, site.n_heads
        self.q_b = nn.Linear(site.dim, h * (self.e + self.r), bias=False)
        self.kv_a = nn.Linear(site.dim, 6 + self.r, bias=False)  # latent and rotary key: whole
        self.kv_b = nn.Linear(6, h * 2 * self.e, bias=False)
        self.o = nn.Linear(h * self.e, site.dim, bias=False)

    def forward(self, x: Tensor, step: llamazoo.Step, state: Any) -> Tensor:
        b, t, _ = x.shape
        q = self.q_b(x).view(b, t, -1, self.e + self.r).transpose(1, 2)
        latent, rotary = self.kv_a(x).split([6, self.r], -1)
        k, v = self.kv_b(latent).view(b, t, -1, 2 * self.e).transpose(1, 2).chunk(2, -1)
        rotary = self.whole(rotary)[:, None].expand(-1, k.shape[1], -1, -1)
        y = F.scaled_dot_product_attention(q, torch.cat((k, rotary), -1), v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))

    def splits(self) -> dict[str, llamazoo.Column | llamazoo.Row]:
        return {"q_b": llamazoo.Column(self.e + self.r), "kv_b": llamazoo.Column(2 * self.e), "o": llamazoo.Row(self.e)}


class Experts(llamazoo.FeedForward):
    """Every token goes to all experts, by a router's weights; a divided one holds a share of each expert's width, or of the experts."""

    name = "all_experts"

    class Options(llamazoo.ComponentOptions):
        by: str = "width"
        """What is divided among processes: "width" or "expert"."""

    def __init__(self, options: Options, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.by_width, self.h = options.by == "width", 10
        self.router = nn.Linear(site.dim, 4, bias=False)
        self.gate_up = nn.Parameter(torch.empty(4, site.dim, 2 * self.h))
        self.down = nn.Parameter(torch.empty(4, self.h, site.dim))

    def reset(self, draw: llamazoo.Draw) -> None:
        super().reset(draw)
        draw.normal(self.gate_up)
        draw.residual(self.down)

    def forward(self, x: Tensor, step: llamazoo.Step) -> Tensor:
        weights = self.router(x).softmax(-1)  # [b t n]
        weights = self.whole(weights) if self.by_width else self.own_heads(weights, -1)
        gate, up = torch.einsum("btd,ndf->btnf", self.whole(x), self.gate_up).chunk(2, -1)
        y = torch.einsum("btnf,nfd->btnd", F.silu(gate) * up, self.down)
        return self.total((y * weights[..., None]).sum(2))

    def splits(self) -> dict[str, llamazoo.Column | llamazoo.Row]:
        if not self.by_width:
            return {"gate_up": llamazoo.Column(), "down": llamazoo.Column()}
        return {"gate_up": llamazoo.Column((1, 1), (self.h, self.h), dim=2), "down": llamazoo.Row(dim=1)}


class LearnedActivation(llamazoo.Activation):
    """A gain that all features share, whole inside a divided feed-forward."""

    name = "gained"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.gain = nn.Parameter(torch.empty(1))

    def reset(self, draw: llamazoo.Draw) -> None:
        draw.constant(self.gain, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.gain * x)


CASES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qk norm and biases": {"attention": {"type": "multihead", "qk_norm": "rmsnorm", "qkv_bias": True, "out_bias": True}},
    "a single key/value head, kept whole": {"n_kv_heads": 1},
    "t5's bias by head": {"position": "t5"},
    "alibi": {"position": "alibi", "attention": {"type": "multihead", "window": 7}},
    "an uneven tied vocabulary": {"head": {"tied": True, "softcap": 5.0, "scale": 0.5}, "position": "learned"},
    "an uneven width and biases": {"feed_forward": {"type": "mlp", "bias": True, "hidden_dim": 21}, "norm": "layernorm"},
    "a head with a bias": {"head": {"bias": True}, "embedding": {"scale": "sqrt_dim"}},
    "fused qkv": {"attention": "fused"},
    "latent attention": {"attention": "shares_a_latent", "position": "none"},
    "experts by width": {"feed_forward": "all_experts"},
    "experts, each whole": {"feed_forward": {"type": "all_experts", "by": "expert"}},
    "a learned activation": {"feed_forward": {"type": "gated", "activation": "gained"}},
}
PARTS = (FusedAttention, LatentAttention, Experts, LearnedActivation)


@pytest.mark.parametrize("case", [c for c in CASES if c != "latent attention"])
def test_two_shares_compute_what_one_process_does(case: str) -> None:
    assert_divided_equals_whole(spec_of(CASES[case], *PARTS))


def test_what_all_heads_share_is_marked_or_its_gradient_is_wrong() -> None:
    spec = spec_of(CASES["latent attention"], *PARTS)
    expected = double(spec)
    expected.loss(tokens_of()).backward()

    def work(share: ThreadShare) -> Any:
        model = double(spec)
        division = divide(model, share)
        model.loss(tokens_of()).backward()
        return {name: division.whole(name, p.grad) for name, p in model.named_parameters() if p.grad is not None}

    for grads in run_threads(2, work):
        for name, p in expected.named_parameters():
            torch.testing.assert_close(grads[name], p.grad, rtol=0, atol=CLOSE)


def test_four_shares_compute_what_one_process_does() -> None:
    assert_divided_equals_whole(spec_of({"n_kv_heads": 4, "position": "t5"}), 4)


def test_each_share_starts_from_its_part_of_the_same_values() -> None:
    spec = spec_of({"head": {"tied": True}})
    one = dict(double(spec).named_parameters())

    def work(share: ThreadShare) -> Any:
        with torch.device("meta"):
            model = llamazoo.Decoder(spec).to(torch.float64)
        model.link()
        division = divide(model, share)
        model.to_empty(device="cpu")
        model.link()
        llamazoo.build.reset(model)
        assert model.head.weight is model.embedding.weight
        return {name: division.whole(name, p) for name, p in model.named_parameters()}

    for found in run_threads(2, work):
        assert found.keys() == one.keys()
        assert all(torch.equal(value, one[name]) for name, value in found.items())


def test_gradients_are_clipped_as_one_process_would() -> None:
    spec = spec_of({"n_kv_heads": 1, "attention": {"type": "multihead", "qk_norm": "rmsnorm"}})
    one = double(spec)
    one.loss(tokens_of()).backward()
    norm = nn.utils.clip_grad_norm_(one.parameters(), 0.5)

    def work(share: ThreadShare) -> Any:
        model = double(spec)
        division = divide(model, share)
        model.loss(tokens_of()).backward()
        found = division.clip_grad_norm(model, 0.5)
        return found, {name: division.whole(name, p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}

    for found, grads in run_threads(2, work):
        assert found.item() == pytest.approx(norm.item(), rel=1e-12)
        for name, p in one.named_parameters():
            torch.testing.assert_close(grads[name], p.grad, rtol=0, atol=CLOSE)


def bytes_of(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())


def test_each_process_holds_its_half() -> None:
    spec = spec_of({"dim": 64, "hidden_dim": 160, "n_layers": 2, "vocab_size": 501, "layers": [{"at": 1, "feed_forward": "mlp"}]})

    def work(share: ThreadShare) -> dict[str, float]:
        model, whole = double(spec), double(spec)
        divide(model, share)
        names = ("embedding", "head", "blocks.0.attention", "blocks.0.feed_forward", "blocks.1.feed_forward")
        return {name: bytes_of(model.get_submodule(name)) / bytes_of(whole.get_submodule(name)) for name in names}

    for shares in run_threads(2, work):
        assert all(share <= 0.55 for share in shares.values()), shares


@pytest.mark.parametrize(
    ("around", "size", "told"),
    [
        ({}, 4, "blocks.0.attention.k: 2 units of 8 do not divide among 4 processes"),
        ({"n_heads": 3, "n_kv_heads": 3, "dim": 24}, 2, "blocks.0.attention.q: 3 units of 8 do not divide among 2 processes"),
        ({"feed_forward": {"type": "gated", "hidden_dim": 1}}, 2, "blocks.0.feed_forward.gate: 1 features do not divide among 2"),
    ],
)
def test_what_does_not_divide_is_refused_with_both_numbers(around: dict[str, Any], size: int, told: str) -> None:
    def work(share: ThreadShare) -> None:
        model = double(spec_of(around))
        before = {name: tuple(p.shape) for name, p in model.named_parameters()}
        with pytest.raises(llamazoo.UnsupportedError, match=told):
            divide(model, share)
        assert {name: tuple(p.shape) for name, p in model.named_parameters()} == before
        assert model.division is None

    run_threads(size, work)


class WholeHead(llamazoo.Head):
    """A tied head that declares no split, over a table that does."""

    name = "whole_head"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.weight = nn.Parameter(torch.empty(site.vocab_size, site.dim))

    def tie(self, embedding: llamazoo.Embedding) -> None:
        self.weight = embedding.weight

    def reset(self, draw: llamazoo.Draw) -> None:
        """Nothing of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Misnamed(llamazoo.FeedForward):
    """A feed-forward whose splits name what is not there."""

    name = "misnamed"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.up = nn.Linear(site.dim, site.dim)

    def forward(self, x: Tensor, step: llamazoo.Step) -> Tensor:
        return self.up(x)

    def splits(self) -> dict[str, llamazoo.Column | llamazoo.Row]:
        return {"upp": llamazoo.Column()}


def test_a_shared_tensor_is_cut_by_all_of_its_owners_or_by_none() -> None:
    def work(share: ThreadShare) -> None:
        with pytest.raises(llamazoo.UnsupportedError, match="are one tensor, and their components do not declare the same split"):
            divide(double(spec_of({"head": "whole_head"}, WholeHead)), share)

    run_threads(2, work)


def test_a_split_of_what_is_not_there_is_named() -> None:
    def work(share: ThreadShare) -> None:
        with pytest.raises(llamazoo.PluginError, match=r"blocks.0.feed_forward.upp: Misnamed.splits\(\) names it"):
            divide(double(spec_of({"feed_forward": "misnamed"}, Misnamed)), share)

    run_threads(2, work)


DIVIDED = {"position": "t5", "n_kv_heads": 2, "head": {"tied": True}, "attention": {"type": "multihead", "qk_norm": "rmsnorm"}}


def rank_computes(folder: str) -> Any:
    """In one of two processes: build on a mesh, compute, compile, save, load again, generate."""
    mesh = init_device_mesh("cpu", (2,))
    spec = spec_of(DIVIDED)
    model = build_model(spec, dtype=torch.float64, mesh=mesh)
    compiled = torch.compile(model.core, fullgraph=True, backend="eager", dynamic=False)
    logits, cached, grads = results(model)
    eager, core = model(tokens_of()), model.core
    model.core = compiled  # type: ignore[method-assign]
    fused = model(tokens_of())
    model.core = core  # type: ignore[method-assign]
    llamazoo.save_model(model, Path(folder) / "model")
    again = llamazoo.load_model(Path(folder) / "model", mesh=mesh)
    loaded = again(tokens_of())
    made = llamazoo.generate(again, tokens_of(1, 5), max_new_tokens=6, temperature=1.0)
    try:
        llamazoo.save_model(model, Path(folder) / "model")
    except llamazoo.SaveError as error:
        told = str(error)
    return {
        "results": [logits, cached],
        "grads": grads,
        "compiled": (fused - eager).abs().max(),
        "loaded": loaded,
        "tokens": made.tokens,
        "told": told,
        "bytes": bytes_of(model),
    }


def test_two_processes_compute_compile_save_load_and_generate(tmp_path: Path) -> None:
    spec = spec_of(DIVIDED)
    one = double(spec)
    logits, _, grads = results(one)
    first, second = run_ranks(2, rank_computes, str(tmp_path))
    for found in (first, second):
        for each in (*found["results"], found["loaded"]):
            torch.testing.assert_close(each, logits, rtol=0, atol=CLOSE)
        for name, grad in grads.items():
            torch.testing.assert_close(found["grads"][name], grad, rtol=0, atol=CLOSE)
        assert found["compiled"] < CLOSE
        assert "exists already" in found["told"]
        assert found["bytes"] < 0.6 * bytes_of(one)
    assert first["tokens"] == second["tokens"]
    alone = llamazoo.load_model(tmp_path / "model")
    assert all(torch.equal(p, dict(one.named_parameters())[name]) for name, p in alone.named_parameters())


def rank_disagrees() -> str:
    mesh = init_device_mesh("cpu", (2,))
    try:
        build_model(spec_of({"norm": {"eps": 1e-3 * (1 + mesh.get_local_rank())}}), mesh=mesh)
    except llamazoo.InputError as error:
        return str(error)
    return "built"


def test_processes_with_different_specs_are_told_so() -> None:
    assert all("the processes disagree about the spec" in told for told in run_ranks(2, rank_disagrees))


def rank_fails() -> None:
    if init_device_mesh("cpu", (2,)).get_local_rank() == 1:
        raise ValueError("on purpose")


def test_a_process_that_fails_is_told_with_its_traceback() -> None:
    with pytest.raises(llamazoo.LlamazooError, match=r"process 1 of a group failed(?s:.*)ValueError: on purpose"):
        run_ranks(2, rank_fails)


def test_a_mesh_is_a_one_dimensional_device_mesh() -> None:
    with pytest.raises(llamazoo.InputError, match=r"mesh is a torch\.distributed\.device_mesh\.DeviceMesh"):
        build_model("llama-tiny", mesh=2)


class FanIn(llamazoo.FeedForward):
    """Starts with weights whose width depends on how many inputs a layer has."""

    name = "fan_in"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.up = nn.Linear(site.dim, 16)
        self.down = nn.Linear(16, site.dim)

    def reset(self, draw: llamazoo.Draw) -> None:
        super().reset(draw)
        for layer in (self.up, self.down):
            draw.normal(layer.weight, layer.weight.shape[1] ** -0.5 + 0 * layer.in_features)
            draw.made(layer.bias, lambda shape, generator: torch.rand(shape, generator=generator))

    def forward(self, x: Tensor, step: llamazoo.Step) -> Tensor:
        return self.down(self.up(x).relu())

    def splits(self) -> dict[str, llamazoo.Column | llamazoo.Row]:
        return {"up": llamazoo.Column(), "down": llamazoo.Row()}


class TwoMixers(llamazoo.Block):
    """Attention, and beside it one that declares no splits; both have the layer's position."""

    name = "two_mixers"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site, layer: llamazoo.LayerSpec) -> None:
        super().__init__(options, site, layer)
        self.attention = site.build(layer.attention)
        self.whole_one = site.build(replace(layer.attention, component=WholeAttention))

    def forward(self, x: Tensor, step: llamazoo.Step, state: Any) -> Tensor:
        return x + self.attention(x, step, state) + self.whole_one(x, step, None if state is None else state.beside)

    def new_state(self, *args: Any, **kwargs: Any) -> Any:
        state: Any = self.attention.new_state(*args, **kwargs)
        state.beside = self.whole_one.new_state(*args, **kwargs)
        return state


MULTIHEAD: Any = llamazoo.default_registry().find("attention", "multihead").component


class WholeAttention(MULTIHEAD):
    """Multihead, and every process computes all of it."""

    name = "whole_attention"

    def splits(self) -> dict[str, llamazoo.Column | llamazoo.Row]:
        return {}


def divided_from_nothing(spec: llamazoo.ArchitectureSpec, share: ThreadShare) -> llamazoo.Decoder:
    with torch.device("meta"):
        model = llamazoo.Decoder(spec).to(torch.float64)
    divide(model, share)
    model.to_empty(device="cpu")
    llamazoo.build.reset(model)
    return model


def test_first_values_that_depend_on_a_width_depend_on_that_of_the_whole() -> None:
    spec = spec_of({"feed_forward": "fan_in"}, FanIn)
    one = dict(double(spec).named_parameters())

    def work(share: ThreadShare) -> Any:
        model = divided_from_nothing(spec, share)
        assert model.division is not None
        return {name: model.division.whole(name, p) for name, p in model.named_parameters()}

    for found in run_threads(2, work):
        assert all(torch.equal(value, one[name]) for name, value in found.items())


def test_a_whole_mixer_beside_a_divided_one_stays_right() -> None:
    assert_divided_equals_whole(spec_of({"block": "two_mixers", "position": "t5"}, TwoMixers))


@pytest.mark.parametrize("position", ["alibi", "t5"])
def test_heads_of_width_one_divide_evenly_or_not_at_all(position: str) -> None:
    spec = spec_of({"n_heads": 12, "n_kv_heads": 3, "head_dim": 1, "dim": 12, "position": position})

    def work(share: ThreadShare) -> None:
        with pytest.raises(llamazoo.UnsupportedError, match=r"attention\.k: 3 features do not divide among 2 processes"):
            divide(double(spec), share)

    run_threads(2, work)


def test_gradients_in_half_precision_are_clipped_by_their_true_norm() -> None:
    def work(share: ThreadShare) -> float:
        model = build_model(spec_of({}), dtype=torch.float16, device="cpu")
        division = divide(model, share)
        for p in model.parameters():
            p.grad = torch.full_like(p, 300.0)
        norm = division.clip_grad_norm(model, 1e3).item()
        assert all(p.grad is not None and 0 < p.grad.max() < 300 for p in model.parameters())
        return norm

    numbers = sum(p.numel() for p in double(spec_of({})).parameters())
    assert run_threads(2, work) == pytest.approx([300 * numbers**0.5] * 2, rel=1e-6)


def test_a_save_that_fails_without_a_word_has_failed_everywhere() -> None:
    def work(share: ThreadShare) -> str:
        division = divide(double(spec_of({})), share)

        def fails() -> None:
            raise MemoryError

        try:
            division.save({}, fails)
        except (MemoryError, llamazoo.SaveError) as error:
            return f"{type(error).__name__}: {error}"
        return "saved"

    assert run_threads(2, work) == ["MemoryError: ", "SaveError: MemoryError"]


def rank_disagrees_about_dtype() -> str:
    mesh = init_device_mesh("cpu", (2,))
    try:
        build_model(BASE, mesh=mesh, dtype=(torch.bfloat16, torch.float16)[mesh.get_local_rank()])
    except llamazoo.InputError as error:
        return str(error)
    return "built"


def test_processes_with_different_dtypes_are_told_so() -> None:
    assert all("disagree about the spec, or the dtype" in told for told in run_ranks(2, rank_disagrees_about_dtype))


def test_processes_that_have_drifted_apart_do_not_save() -> None:
    def work(share: ThreadShare) -> str:
        model = double(spec_of({}))
        division = divide(model, share)
        with torch.no_grad():
            model.get_parameter("final_norm.weight").add_(share.rank)
        try:
            division.save(dict(model.named_parameters()), lambda: None)
        except llamazoo.SaveError as error:
            return str(error)
        return "saved"

    assert all("the processes have drifted apart" in told for told in run_threads(2, work))
