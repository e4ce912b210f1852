"""The mixers keep llamazoo's contract, alone and in hybrids, and what the README says of them is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from llamazoo_recurrent.plugin import llamazoo_components

import llamazoo
from llamazoo.testing import CHECKS, check_component, subject

README = (Path(__file__).parents[1] / "README.md").read_text()
SPECS = re.findall(r"```yaml\n# (.*?)\n(.*?)```", README, re.DOTALL)
NAMES = ["gla", "retention", "mamba2", "gated_delta"]
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("gla", {"chunk": 5, "n_heads": 3, "key_dim": 3, "value_dim": 5, "norm": "layernorm"}, {"position": "learned", "block": "parallel"}),
    ("gla", {"chunk": 4, "activation": "sigmoid", "norm": "none"}, {"block": "postnorm"}),
    ("gla", {"chunk": 5, "conv": 3, "n_heads": 3, "key_dim": 3, "value_dim": 5}, {"block": "parallel"}),
    ("gla", {"chunk": 4, "conv": 1}, {}),
    ("retention", {"chunk": 5, "n_heads": 3, "value_dim": 5, "exponent": 1.5}, {"position": "none", "block": "sandwich"}),
    ("retention", {"chunk": 4, "norm": "rmsnorm"}, {"position": {"type": "rope", "layout": "interleaved", "fraction": 0.5}}),
    ("mamba2", {"state_dim": 8}, {}),
    ("mamba2", {"state_dim": 4, "chunk": 5, "n_heads": 6, "head_dim": 3, "n_groups": 3, "conv": 2}, {"position": "learned"}),
    ("mamba2", {"state_dim": 4, "chunk": 7, "conv": 1, "conv_bias": False, "dt_max": 3.0}, {"block": "parallel"}),
    ("gated_delta", {"chunk": 5, "n_heads": 3, "key_dim": 3, "value_dim": 5, "conv": 2, "beta_max": 2.0}, {"position": "sinusoidal"}),
    ("gated_delta", {"chunk": 4, "conv": 1, "norm": "layernorm", "dt_max": 3.0}, {"block": "parallel"}),
]
HYBRID = {
    "n_layers": 4,
    "layers": [
        {"every": 4, "offset": 3, "attention": "multihead"},
        {"at": 1, "attention": {"type": "multihead", "window": 5}},
    ],
}


def component(name: str) -> type[llamazoo.Component]:
    return llamazoo.default_registry().find("attention", name).component


OF_STATES = ("meta_build", "causality", "cached", "padding", "segments", "state_rows", "rewind")  # the checks that options bear upon


@pytest.mark.parametrize("name", NAMES)
def test_mixers_keep_the_contract(name: str) -> None:
    check_component(component(name))


@pytest.mark.parametrize(("name", "options", "around"), CASES, ids=str)
@torch.no_grad()
def test_mixers_keep_it_with_other_options_and_in_other_surroundings(name: str, options: dict[str, Any], around: dict[str, Any]) -> None:
    tried = subject(component(name), options, around=around)
    assert [str(failure) for check in OF_STATES for failure in CHECKS[check](tried)] == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gla", {"norm": "layernorm", "chunk": 5}),
        ("gla", {"conv": 4, "chunk": 5}),
        ("mamba2", {"state_dim": 6, "n_groups": 2, "chunk": 5}),
        ("mamba2", {"state_dim": 6, "conv_bias": False}),
        ("gated_delta", {"norm": "layernorm", "chunk": 5}),
    ],
    ids=str,
)
def test_mixers_are_divided_with_other_options_too(name: str, options: dict[str, Any]) -> None:
    assert [str(failure) for failure in CHECKS["splits"](subject(component(name), options))] == []


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_mixers_keep_it_beside_attention_and_a_ring(name: str) -> None:
    tried = subject(component(name), {"chunk": 5}, around=HYBRID)
    assert [str(failure) for check in OF_STATES for failure in CHECKS[check](tried)] == []


def test_the_plugin_offers_its_mixers_and_nothing_else() -> None:
    assert [c.name for c in llamazoo_components()] == NAMES
    offers = [o for o in llamazoo.default_registry().offers() if o.distribution == "llamazoo-recurrent"]
    assert sorted(o.name for o in offers) == sorted(NAMES)
    assert [b for b in llamazoo.default_registry().broken if b.distribution == "llamazoo-recurrent"] == []


# The specs of the README


SMALL = {"dim": 32, "hidden_dim": 24, "vocab_size": 31, "init": {"std": 0.1}, "dtype": "float32"}


def shrunk(text: str) -> dict[str, Any]:
    """A spec of the README in a size for tests."""
    return {**llamazoo.load_spec(read(text)).canonical(), **SMALL}


def read(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


named = pytest.mark.parametrize("text", [text for _, text in SPECS], ids=[name.split(":")[0].split(",")[0] for name, _ in SPECS])


def test_the_readme_has_a_spec_for_each_mixer_and_a_hybrid() -> None:
    assert len(SPECS) == len(NAMES) + 1
    assert {llamazoo.load_spec(read(text)).attention.component.name for _, text in SPECS} == set(NAMES)


@named
def test_a_spec_of_the_readme_learns_generates_and_is_saved(text: str, tmp_path: Path) -> None:
    model = llamazoo.build_model(shrunk(text), dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    tokens = torch.arange(24).remainder(5).expand(2, -1)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model.loss(tokens)
        loss.backward()
        losses.append(loss.item())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    model.eval()
    made = llamazoo.generate(model, tokens[:, :9], max_new_tokens=6, temperature=0)
    for row, new in zip(tokens[:, :9], made.tokens, strict=True):
        held = row.tolist()
        for token in new:
            with torch.no_grad():
                assert model(torch.tensor([held]), last_only=True)[0, -1].argmax() == token, "a step on a state differs from a call without"
            held.append(token)
    llamazoo.save_model(model, tmp_path / "model")
    again = llamazoo.load_model(tmp_path / "model")
    assert again.spec == model.spec
    with torch.no_grad():
        assert torch.equal(again(tokens), model(tokens))


def state_bytes(spec: llamazoo.ArchitectureSpec, itemsize: int) -> int:
    """What the table in the README says, for one row and one layer."""
    site, part = spec.site(), spec.attention.options.model_dump()
    heads, e = site.n_heads, site.head_dim
    if spec.attention.component.name == "gla":
        return 4 * heads * (e // 2) * e + ((part["conv"] or 1) - 1) * heads * (2 * (e // 2) + e) * itemsize
    if spec.attention.component.name == "retention":
        return 4 * heads * e * 2 * e
    if spec.attention.component.name == "mamba2":
        s, g, c = part["state_dim"], part["n_groups"], part["conv"]
        return 4 * 2 * heads * s * e + (c - 1) * (2 * heads * e + 2 * g * s) * itemsize
    return 4 * heads * e * 2 * e + (part["conv"] - 1) * heads * (2 * e + 2 * e) * itemsize


@pytest.mark.parametrize("text", [text for name, text in SPECS if "hybrid" not in name], ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_state_is_as_large_as_the_readme_says_at_any_capacity(text: str, dtype: torch.dtype) -> None:
    spec = llamazoo.load_spec(read(text))
    model = llamazoo.build_model(spec, dtype=dtype)
    expected = 3 * spec.n_layers * state_bytes(spec, dtype.itemsize)
    assert [model.new_state(3, capacity).nbytes for capacity in (1, 1024, 65536)] == [expected] * 3


@pytest.mark.parametrize("conv", [1, 4])
def test_the_convolutions_of_gla_are_counted_in_its_state_and_its_operations(conv: int) -> None:
    plain = llamazoo.load_spec(read(SPECS[0][1]))
    spec = llamazoo.load_spec(plain, {"attention.conv": conv})
    models = [llamazoo.build_model(each, dtype=torch.bfloat16) for each in (plain, spec)]
    assert [m.new_state(3, 64).nbytes for m in models] == [3 * s.n_layers * state_bytes(s, 2) for s in (plain, spec)]
    more = sum(2 * p.numel() for name, p in models[1].named_parameters() if name.endswith("_conv"))
    assert more == 2 * spec.n_layers * conv * 4 * (16 + 16 + 32)  # four heads of 16 key and 32 value channels
    assert llamazoo.describe(spec).flops_per_token - llamazoo.describe(plain).flops_per_token == more


@named
def test_describe_counts_what_a_model_holds_and_does(text: str) -> None:
    spec = llamazoo.load_spec(read(text))
    described = llamazoo.describe(spec)
    model = llamazoo.build_model(spec)
    assert described.parameters == sum(p.numel() for p in model.parameters())
    attending = sum(spec.layer(i).attention.component.name == "multihead" for i in range(spec.n_layers))
    # Two key/value heads of 32 in float32, for each token, in the layers that attend; the others keep what they have.
    assert described.cache_bytes_per_token == attending * 2 * 2 * 32 * 4
    shorter = llamazoo.describe(llamazoo.load_spec(spec, {"max_seq_len": 1024}))
    assert (described.flops_per_token == shorter.flops_per_token) == (attending == 0)


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_those_of_the_matrices_and_of_the_memory(name: str) -> None:
    spec = llamazoo.load_spec(read(next(text for _, text in SPECS if f"{name}" in text)))
    with torch.device("meta"):
        mixer = llamazoo.Decoder(spec).blocks[0].attention
    assert isinstance(mixer, llamazoo.Attention)
    matrices = sum(2 * p.numel() for p in mixer.parameters() if p.ndim == 2)
    memory = mixer.new_state(1, 8, chunk=8, device=torch.device("meta"), dtype=torch.float32)["memory"].numel()  # type: ignore[index]
    products = 3 if name == "gated_delta" else 2
    assert mixer.flops(10) == mixer.flops(10000) == matrices + 2 * products * memory


# First values


def test_fresh_time_steps_and_rates_lie_where_the_options_say() -> None:
    for name in ("mamba2", "gated_delta"):
        options = {"type": name, "n_heads": 64, "dt_min": 0.01, "dt_max": 0.2, "a_min": 2.0, "a_max": 3.0}
        mixer: Any = llamazoo.build_model({**shrunk(SPECS[2][1]), "attention": options}, dtype=torch.float64).blocks[0].attention
        dt, a = torch.nn.functional.softplus(mixer.dt_bias), mixer.A_log.exp()
        assert dt.min() >= 0.01 * 0.999
        assert dt.max() <= 0.2 * 1.001
        assert dt.median() < 0.07, "as logarithms, not as numbers"
        assert dt.std() > 0.01
        assert a.min() >= 2
        assert a.max() <= 3
        assert a.std() > 0.2


def test_retention_forgets_as_the_paper_says() -> None:
    mixer: Any = llamazoo.build_model(shrunk(SPECS[1][1]), dtype=torch.bfloat16).blocks[0].attention
    assert mixer.decays.dtype == torch.float32
    torch.testing.assert_close(mixer.decays.exp(), 1 - torch.tensor([2.0**-5, 2.0**-6, 2.0**-7, 2.0**-8]))


# What is refused


@pytest.mark.parametrize(
    ("attention", "told"),
    [
        ({"type": "mamba2", "n_groups": 3}, r"attention\.n_groups: 3 groups do not divide 8 heads; change n_groups or n_heads"),
        ({"type": "mamba2", "dt_min": 0.5}, r"attention\.dt_min: 0\.5 is more than dt_max, which is 0\.1; lower it, or raise dt_max"),
        ({"type": "gated_delta", "a_min": 20.0}, r"attention\.a_min: 20 is more than a_max, which is 16; lower it, or raise a_max"),
        ({"type": "gated_delta", "beta_max": 2.5}, r"attention\.beta_max"),
        ({"type": "gla", "chunk": 0}, r"attention\.chunk"),
        ({"type": "gla", "norm": "rmsnrm"}, r"attention\.norm: no norm named 'rmsnrm'"),
    ],
)
def test_options_that_cannot_work_are_refused_where_they_stand(attention: dict[str, Any], told: str) -> None:
    with pytest.raises(llamazoo.SpecError, match=told):
        llamazoo.load_spec({**shrunk(SPECS[0][1]), "attention": attention})


@pytest.mark.parametrize("name", ["gla", "mamba2", "gated_delta"])
def test_a_rotary_position_is_refused_where_nothing_would_turn(name: str) -> None:
    with pytest.raises(llamazoo.SpecError, match=rf"the attention '{name}' does not do what the position 'rope' asks \(rotate\)"):
        llamazoo.load_spec({**shrunk(SPECS[0][1]), "attention": name, "position": "rope"})


@named
@torch.no_grad()
def test_a_memory_goes_back_to_nothing_or_not_at_all(text: str) -> None:
    model = llamazoo.build_model(shrunk(text), dtype=torch.float64).eval()
    tokens = torch.arange(12).remainder(7).expand(2, -1)
    state = model.new_state(2, 40)
    model(tokens, state=state)
    with pytest.raises(llamazoo.CannotRewind, match="row 1 goes from 12 tokens to 0 only, not to 5"):
        state.rewind([12, 5])
    assert state.lengths == [12, 12]
    state.rewind([12, 0])
    both = model(tokens, state=state)
    torch.testing.assert_close(both[1], model(tokens)[1], rtol=0, atol=1e-9)
    torch.testing.assert_close(both[0], model(tokens.repeat(1, 2))[0, 12:], rtol=0, atol=1e-9)
