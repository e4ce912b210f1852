"""Each mixer as a whole is what its equations say, token by token, however a text is packed, padded and cut into calls."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import llamazoo

SPEC: dict[str, Any] = {
    "vocab_size": 29,
    "dim": 12,
    "hidden_dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "head_dim": 4,
    "max_seq_len": 64,
    "init": {"std": 0.4},
    "norm": "rmsnorm",
    "position": "none",
    "feed_forward": "swiglu",
}
DOCUMENTS = (6, 1, 13, 2, 8)


# The equations, for one document x [t d] in float64. No chunk, no batch, no state.


def gla(m: Any, x: Tensor) -> Tensor:
    heads = m.q.out_features // m.key_dim
    layers = ((m.q, m.q_conv), (m.k, m.k_conv), (m.v, m.v_conv))
    queries, keys, values = (layer(x) if conv is None else convolved(layer(x), conv) for layer, conv in layers)
    memory, out = torch.zeros(heads, m.key_dim, m.value_dim, dtype=x.dtype), []
    for i, token in enumerate(x):
        q, k, v = (y[i].view(heads, -1) for y in (queries, keys, values))
        alpha = torch.sigmoid(m.decay_up(m.decay_down(token))).view(heads, -1) ** (1 / m.temperature)
        memory = alpha[:, :, None] * memory + torch.einsum("he,hw->hew", k, v)
        o = torch.einsum("he,hew->hw", q / m.key_dim**0.5, memory)
        out.append(m.o((m.norm(o) * F.silu(m.gate(token)).view(heads, -1)).flatten()))
    return torch.stack(out)


def retention(m: Any, x: Tensor) -> Tensor:
    heads, half = m.q.out_features // m.key_dim, m.key_dim // 2
    gamma = torch.tensor([1 - 2 ** -(m.exponent + head) for head in range(heads)], dtype=x.dtype)
    memory, out = torch.zeros(heads, m.key_dim, m.value_dim, dtype=x.dtype), []
    for position, token in enumerate(x):
        turn = torch.polar(torch.ones(half, dtype=x.dtype), position * 10000.0 ** -(torch.arange(half, dtype=x.dtype) / half))
        q, k = (layer(token).view(heads, 2, half) for layer in (m.q, m.k))
        q, k = (torch.complex(y[:, 0], y[:, 1]) * turn for y in (q, k))
        q, k = (torch.cat((y.real, y.imag), -1) for y in (q, k))
        memory = gamma[:, None, None] * memory + torch.einsum("he,hw->hew", k, m.v(token).view(heads, -1))
        weight = torch.stack([gamma**n for n in range(position + 1)]).sum(0)
        o = torch.einsum("he,hew->hw", q / m.key_dim**0.5, memory) / weight[:, None] ** 0.5
        out.append(m.o((m.norm(o) * F.silu(m.gate(token)).view(heads, -1)).flatten()))
    return torch.stack(out)


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = F.conv1d(F.pad(x.T, (weight.shape[1] - 1, 0)), weight[:, None], bias, groups=len(weight))
    return F.silu(y.T)


def mamba2(m: Any, x: Tensor) -> Tensor:
    heads, groups, e = len(m.A_log), m.n_groups, m.state_dim
    inner = heads * m.head_dim
    z, xbc, dt = m.in_proj(x).split([inner, inner + 2 * groups * e, heads], -1)
    xbc = convolved(xbc, m.conv, m.conv_bias)
    dt = F.softplus(dt + m.dt_bias)
    memory, out = torch.zeros(heads, e, m.head_dim, dtype=x.dtype), []
    for i in range(len(x)):
        inputs = xbc[i, :inner].view(heads, -1)
        b, c = (y.view(groups, e).repeat_interleave(heads // groups, 0) for y in xbc[i, inner:].split(groups * e))
        decay = torch.exp(-m.A_log.exp() * dt[i])
        memory = decay[:, None, None] * memory + torch.einsum("he,hw->hew", b, dt[i][:, None] * inputs)
        y = torch.einsum("he,hew->hw", c, memory) + m.D[:, None] * inputs
        y = (y.flatten() * F.silu(z[i])).view(groups, -1)
        y = y / (y.square().mean(-1, keepdim=True) + m.eps).sqrt()
        out.append(m.out_proj(y.flatten() * m.norm))
    return torch.stack(out)


def gated_delta(m: Any, x: Tensor) -> Tensor:
    heads = len(m.A_log)
    q, k, v = (convolved(layer(x), conv) for layer, conv in ((m.q, m.q_conv), (m.k, m.k_conv), (m.v, m.v_conv)))
    alpha = torch.exp(-m.A_log.exp() * F.softplus(m.alpha(x) + m.dt_bias))
    beta = m.beta_max * torch.sigmoid(m.beta(x))
    identity = torch.eye(m.key_dim, dtype=x.dtype)
    memory, out = torch.zeros(heads, m.key_dim, m.value_dim, dtype=x.dtype), []
    for i in range(len(x)):
        q_i, k_i = (y[i].view(heads, -1) for y in (q, k))
        q_i, k_i = (y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt() for y in (q_i, k_i))
        replaced = identity - beta[i][:, None, None] * torch.einsum("he,hf->hef", k_i, k_i)
        written = beta[i][:, None, None] * torch.einsum("he,hw->hew", k_i, v[i].view(heads, -1))
        memory = alpha[i][:, None, None] * replaced @ memory + written
        o = torch.einsum("he,hew->hw", q_i / m.key_dim**0.5, memory)
        out.append(m.o((m.norm(o) * F.silu(m.gate(x[i])).view(heads, -1)).flatten()))
    return torch.stack(out)


EQUATIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {"gla": gla, "retention": retention, "mamba2": mamba2, "gated_delta": gated_delta}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("gla", {}),
    ("gla", {"chunk": 5, "n_heads": 3, "key_dim": 3, "value_dim": 5, "gate_rank": 2, "temperature": 0.5, "norm": "layernorm"}),
    ("gla", {"conv": 4}),
    ("gla", {"chunk": 5, "conv": 3, "n_heads": 3, "key_dim": 3, "value_dim": 5, "temperature": 0.5}),
    ("gla", {"chunk": 8, "conv": 1}),
    ("retention", {}),
    ("retention", {"chunk": 5, "n_heads": 3, "value_dim": 5, "exponent": 0.7}),
    ("retention", {"exponent": 2000.0}),
    ("mamba2", {"state_dim": 6}),
    ("mamba2", {"chunk": 5, "n_heads": 6, "head_dim": 3, "state_dim": 4, "n_groups": 3, "conv": 2, "dt_max": 2.0, "conv_bias": False}),
    ("mamba2", {"chunk": 8, "state_dim": 4, "conv": 1}),
    ("gated_delta", {}),
    ("gated_delta", {"chunk": 5, "n_heads": 3, "key_dim": 3, "value_dim": 5, "conv": 3, "beta_max": 2.0, "dt_max": 2.0}),
    ("gated_delta", {"chunk": 8, "conv": 1, "a_max": 1.0}),
]
each = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else str(v or ""))


def model_of(name: str, options: dict[str, Any], dtype: torch.dtype = torch.float64, **around: Any) -> llamazoo.Decoder:
    position = "rope" if name == "retention" else "none"
    spec = {**SPEC, "position": position, "attention": {"type": name, **options}, **around}
    return llamazoo.build_model(spec, dtype=dtype).eval()


def mixer(model: llamazoo.Decoder) -> llamazoo.Attention:
    found = model.blocks[0].attention
    assert isinstance(found, llamazoo.Attention)
    return found


class Watched:
    """What the model's mixer was given, and what it gave, one pair a call."""

    def __init__(self, model: llamazoo.Decoder) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []
        mixer(model).register_forward_hook(self.note)

    def note(self, module: nn.Module, given: tuple[Any, ...], found: Tensor) -> None:
        self.calls.append((given[0], found))

    def joined(self) -> tuple[Tensor, Tensor]:
        given, found = zip(*self.calls, strict=True)
        return torch.cat(given, 1), torch.cat(found, 1)


def packed(rows: int = 2) -> tuple[Tensor, Tensor]:
    """Rows of several documents; a number that was there before comes back."""
    ids = torch.cat([torch.full((length,), number) for length, number in zip(DOCUMENTS, (3, 1, 3, 0, 1), strict=True)])
    return torch.randint(0, SPEC["vocab_size"], (rows, sum(DOCUMENTS))), ids.expand(rows, -1)


def expected(name: str, model: llamazoo.Decoder, given: Tensor, documents: tuple[int, ...] = DOCUMENTS) -> Tensor:
    rows = [torch.cat([EQUATIONS[name](mixer(model), x) for x in row.split(documents)]) for row in given]
    return torch.stack(rows)


def assert_close(found: Tensor, wanted: Tensor, what: str = "the mixer's output") -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9, msg=lambda told: f"{what}: {told}")


@each
@torch.no_grad()
def test_a_mixer_computes_its_equations_for_every_packed_document(name: str, options: dict[str, Any]) -> None:
    model = model_of(name, options)
    watched = Watched(model)
    tokens, segments = packed()
    model(tokens, segments=segments)
    given, found = watched.joined()
    assert_close(found, expected(name, model, given))


@each
@pytest.mark.parametrize("cuts", [[1] * 30, [30], [1, 5, 1, 4, 2, 9, 8], [7, 7, 7, 9]], ids=str)
@torch.no_grad()
def test_a_mixer_computes_its_equations_for_any_cut_into_calls(name: str, options: dict[str, Any], cuts: list[int]) -> None:
    model = model_of(name, options)
    watched = Watched(model)
    tokens, segments = packed()
    state = model.new_state(2, 30)
    for piece, ids in zip(tokens.split(cuts, 1), segments.split(cuts, 1), strict=True):
        model(piece, state=state, segments=ids)
    given, found = watched.joined()
    assert_close(found, expected(name, model, given))


@each
def test_gradients_are_those_of_the_equations(name: str, options: dict[str, Any]) -> None:
    model = model_of(name, options)
    watched = Watched(model)
    tokens, segments = packed(1)
    model(tokens, segments=segments)
    given, found = watched.calls[0]
    leaf = given.detach().requires_grad_()
    reference = expected(name, model, leaf)
    weights = dict(mixer(model).named_parameters())
    ours = torch.autograd.grad(found.sin().sum(), [given, *weights.values()])
    theirs = torch.autograd.grad(reference.sin().sum(), [leaf, *weights.values()])
    for what, a, b in zip(("x", *weights), ours, theirs, strict=True):
        assert_close(a, b, what)
        assert b.abs().max() > 0, what


@each
@pytest.mark.parametrize("numbered", [False, True], ids=["plain", "segments"])
@torch.no_grad()
def test_padding_after_the_end_leaves_no_trace_in_later_calls(name: str, options: dict[str, Any], numbered: bool) -> None:
    """Rows of different lengths, then chunks in which one row has nothing but padding in some slices, because of a ring beside it."""
    around: dict[str, Any] = {"n_layers": 2, "layers": [{"at": 1, "attention": {"type": "multihead", "window": 3}}]}
    model = model_of(name, options, **around)
    lengths = [(9, 2), (1, 12), (6, 5)]
    texts = [torch.randint(0, SPEC["vocab_size"], (1, sum(row[i] for row in lengths))) for i in range(2)]
    state = model.new_state(2, 32, chunk=4)  # longer calls reach the layers four tokens at a time
    found: list[list[Tensor]] = [[], []]
    at = [0, 0]
    for call in lengths:
        width = max(call)
        tokens, valid = torch.zeros(2, width, dtype=torch.int64), torch.zeros(2, width, dtype=torch.bool)
        for row, count in enumerate(call):
            tokens[row, :count] = texts[row][0, at[row] : at[row] + count]
            valid[row, :count] = True
            at[row] += count
        logits = model(tokens, state=state, valid=valid, segments=7 * ~valid if numbered else None)  # padding has a number of its own
        for row, count in enumerate(call):
            found[row].append(logits[row, :count])
    for row in range(2):
        assert_close(torch.cat(found[row]), model(texts[row])[0])


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_strong_decays_are_finite_and_right_in_narrow_dtypes(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """Weights so large that most decays are nothing or everything; half precision may lose what its eight bits cannot hold, no more."""
    exact = model_of(name, options)
    with torch.no_grad():
        for what, weight in mixer(exact).named_parameters():
            if what in ("decay_up.weight", "decay_up.bias", "alpha.weight", "dt_bias", "A_log"):
                weight.mul_(0).add_(torch.randn(weight.shape, dtype=weight.dtype) * (5 if what == "A_log" else 30))
        rounded = {key: value.to(dtype).double() for key, value in exact.state_dict().items()}
    exact.load_state_dict(rounded)
    model = model_of(name, options, dtype)
    model.load_state_dict({key: value.to(dtype) for key, value in rounded.items()})
    tokens = torch.randint(0, SPEC["vocab_size"], (2, 48))
    loss, wanted = model.loss(tokens), exact.loss(tokens)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(loss.double(), wanted, rtol=tolerance, atol=0)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_mixer_learns_and_decodes_under_autocast(name: str) -> None:
    model = model_of(name, {"chunk": 8}, torch.float32)
    tokens = torch.randint(0, SPEC["vocab_size"], (2, 40))
    plain = model.loss(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(tokens)
        state = model.new_state(2, 40)
        pieces = [model(piece, state=state) for piece in tokens.split([20, *[1] * 20], 1)]
        whole = model(tokens)
    torch.testing.assert_close(loss, plain, rtol=0.02, atol=0)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=0.15)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", EQUATIONS)
@torch.no_grad()
def test_a_memory_is_kept_in_float32_for_a_half_precision_model(name: str) -> None:
    model = model_of(name, {}, torch.bfloat16)
    memory: Any = mixer(model).new_state(2, 8, chunk=4, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert memory["memory"].dtype == torch.float32
    state = model.new_state(2, 40)
    tokens = torch.randint(0, SPEC["vocab_size"], (2, 40))
    pieces = [model(piece, state=state) for piece in tokens.split([20, *[1] * 20], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), rtol=0, atol=0.15)
