"""Rotary frequencies for longer contexts: their formulas, transformers' own numbers, and what they follow from."""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import llamazoo
from llamazoo.errors import SpecError
from llamazoo.testing.tiny import BASE

PAIRS = 16
SHORT, LONG = [1.0 + 0.01 * i for i in range(PAIRS)], [1.0 + 0.9 * i for i in range(PAIRS)]
SCALINGS: list[dict[str, Any]] = [
    {"type": "linear", "factor": 2.5},
    {"type": "dynamic", "factor": 2.0, "original": 128},
    {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original": 512},
    {"type": "yarn", "factor": 4.0, "original": 512},
    {"type": "yarn", "factor": 40.0, "original": 4096, "mscale": 0.7, "mscale_all_dim": 0.5},
    {"type": "yarn", "factor": 32.0, "original": 4096, "truncate": False, "beta_fast": 24.0, "beta_slow": 2.0},
    {"type": "yarn", "factor": 1.0, "original": 64, "attention_factor": 1.25},
    {"type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original": 128},
    {"type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original": 128, "factor": 32.0},
    {"type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original": 128, "attention_factor": 1.5},
]
HORIZONS = (100, 128, 129, 1000)
MAX_SEQ_LEN = 1024


def model_of(scaling: dict[str, Any] | None, *, dtype: torch.dtype = torch.float64, **changes: Any) -> llamazoo.Decoder:
    position = {"type": "rope", "scaling": scaling, **changes.pop("rope", {})}
    spec = {**BASE, "max_seq_len": MAX_SEQ_LEN, "head_dim": 2 * PAIRS, "n_layers": 1, "position": position, **changes}
    return llamazoo.build_model(spec, dtype=dtype, device="cpu").eval()


def turned(model: llamazoo.Decoder, horizon: int) -> tuple[torch.Tensor, float]:
    """The frequencies of a rope by halves, read off the angles of the first token, and what its cosines are multiplied by."""
    rope = model.positions["at_main"]
    at = rope.prepare(torch.tensor([[0, 1]]), horizon=horizon, dtype=model.dtype)  # type: ignore[operator]
    cos, sin = at.cos[0, 0], at.sin[0, 0]
    half = cos.shape[-1] // 2
    return torch.atan2(sin[1, half:], cos[1, half:]), cos[0, 0].item()


def plain(theta: float, pairs: int) -> list[float]:
    return [theta ** (-i / pairs) for i in range(pairs)]


def by_hand(scaling: dict[str, Any], theta: float, pairs: int, horizon: int) -> list[float]:
    """The formulas of the papers, number by number."""
    f, own = plain(theta, pairs), scaling
    match own["type"]:
        case "linear":
            return [x / own["factor"] for x in f]
        case "dynamic":
            length = max(horizon, own["original"])
            base = theta * (own["factor"] * length / own["original"] - (own["factor"] - 1)) ** (2 * pairs / (2 * pairs - 2))
            return plain(base, pairs)
        case "llama3":
            found = []
            for x in f:
                wave = 2 * math.pi / x
                if wave < own["original"] / own["high_freq_factor"]:
                    found.append(x)
                elif wave > own["original"] / own["low_freq_factor"]:
                    found.append(x / own["factor"])
                else:
                    smooth = (own["original"] / wave - own["low_freq_factor"]) / (own["high_freq_factor"] - own["low_freq_factor"])
                    found.append((1 - smooth) * x / own["factor"] + smooth * x)
            return found
        case "yarn":
            own = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, **own}
            low, high = (
                2 * pairs * math.log(own["original"] / (own[beta] * 2 * math.pi)) / (2 * math.log(theta))
                for beta in ("beta_fast", "beta_slow")
            )
            if own["truncate"]:
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, 2 * pairs - 1)
            ramp = [min(1.0, max(0.0, (i - low) / (high - low))) for i in range(pairs)]
            return [x / own["factor"] * r + x * (1 - r) for x, r in zip(f, ramp, strict=True)]
        case "longrope":
            factors = own["long_factor"] if horizon > own["original"] else own["short_factor"]
            return [x / by for x, by in zip(f, factors, strict=False)]
    raise AssertionError


def shortened(scaling: dict[str, Any], pairs: int) -> dict[str, Any]:
    return {name: value[:pairs] if isinstance(value, list) else value for name, value in scaling.items()}


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: f"{s['type']} {len(s)}")
@pytest.mark.parametrize(("theta", "fraction"), [(10000.0, 1.0), (5e5, 0.5), (10000.0, 0.25)])
def test_frequencies_are_those_of_the_papers(scaling: dict[str, Any], theta: float, fraction: float) -> None:
    pairs = int(PAIRS * fraction)
    scaling = shortened(scaling, pairs)
    model = model_of(scaling, rope={"theta": theta, "fraction": fraction})
    for horizon in HORIZONS:
        found, _ = turned(model, horizon)
        expected = torch.tensor(by_hand(scaling, theta, pairs, horizon), dtype=torch.float64)
        assert ((found - expected) / expected).abs().max() < 1e-12


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: f"{s['type']} {len(s)}")
@pytest.mark.parametrize(("theta", "fraction"), [(10000.0, 1.0), (5e5, 0.5)])
def test_frequencies_and_gains_are_those_of_transformers(scaling: dict[str, Any], theta: float, fraction: float) -> None:
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
    scaling = shortened(scaling, int(PAIRS * fraction))
    model = model_of(scaling, rope={"theta": theta, "fraction": fraction})
    theirs = {name: value for name, value in scaling.items() if name not in ("type", "original")}
    rope = {"rope_type": scaling["type"], "rope_theta": theta, "partial_rotary_factor": fraction, **theirs}
    rope["original_max_position_embeddings"] = scaling.get("original")
    longest = scaling["original"] if scaling["type"] == "dynamic" else MAX_SEQ_LEN
    config = SimpleNamespace(rope_parameters=rope, head_dim=2 * PAIRS, hidden_size=24, num_attention_heads=4)
    config.max_position_embeddings, config.standardize_rope_params = longest, lambda: None
    for horizon in HORIZONS:
        expected, gain = rope_utils.ROPE_INIT_FUNCTIONS[scaling["type"]](config, torch.device("cpu"), seq_len=horizon)
        found, own = turned(model, horizon)
        # float32 there, where a share of the ramp is one less another: that rounds in the unscaled frequency's digits.
        rounding = 1e-6 * found + 1e-7 * torch.tensor(plain(theta, len(found)), dtype=torch.float64)
        assert bool(((found - expected.double()).abs() < rounding).all())
        assert abs(own - gain) < 1e-12


@pytest.mark.parametrize("scaling", SCALINGS[:4] + SCALINGS[-1:], ids=lambda s: s["type"])
def test_the_layout_says_where_pairs_stand_and_nothing_else(scaling: dict[str, Any]) -> None:
    halves, interleaved = (model_of(scaling, rope={"layout": layout}).positions["at_main"] for layout in ("half", "interleaved"))
    x = torch.randn(1, 2, 5, 2 * PAIRS, dtype=torch.float64)
    order = torch.arange(2 * PAIRS).view(2, PAIRS).T.flatten()  # pair i stands at 2i and 2i + 1
    for horizon in HORIZONS:
        ats = [r.prepare(torch.arange(5)[None], horizon=horizon, dtype=x.dtype) for r in (halves, interleaved)]  # type: ignore[operator]
        expected = halves.turn(x, ats[0])[..., order]  # type: ignore[operator]
        assert (interleaved.turn(x[..., order], ats[1]) - expected).abs().max() < 1e-12  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_frequencies_of_a_model_in_half_precision_are_kept_in_float32(dtype: torch.dtype) -> None:
    for scaling in SCALINGS:
        exact = turned(model_of(scaling), 1000)[0]
        rope = model_of(scaling, dtype=dtype).positions["at_main"]
        at = rope.prepare(torch.tensor([[1]]), horizon=1000, dtype=torch.float32)  # type: ignore[operator]
        found = torch.atan2(at.sin[0, 0, 0, PAIRS:], at.cos[0, 0, 0, PAIRS:])
        assert ((found - exact) / exact).abs().max() < 1e-5


def tokens_of(length: int) -> torch.Tensor:
    return torch.randint(0, BASE["vocab_size"], (2, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def test_a_call_without_a_state_takes_the_short_factors_while_its_rows_are_short() -> None:
    scaling = {"type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original": 8, "attention_factor": 1.0}
    short, long = ({**scaling, "short_factor": factors, "long_factor": factors} for factors in (SHORT, LONG))
    model, always_short, always_long = (model_of(s) for s in (scaling, short, long))
    for length, same in ((8, always_short), (9, always_long)):
        assert torch.equal(model(tokens_of(length)), same(tokens_of(length)))
    assert torch.equal(model(tokens_of(8), state=model.new_state(2, 9)), always_long(tokens_of(8), state=always_long.new_state(2, 9)))
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[:, 8:] = False  # padding does not lengthen a row
    assert torch.equal(model(tokens_of(12), valid=valid)[:, :8], always_short(tokens_of(12), valid=valid)[:, :8])


@torch.no_grad()
@pytest.mark.parametrize("scaling", [SCALINGS[1], SCALINGS[7]], ids=lambda s: s["type"])
def test_generating_past_the_original_context_equals_one_call_over_the_whole_text(scaling: dict[str, Any]) -> None:
    model = model_of({**scaling, "original": 16})
    prompt = tokens_of(12)[0].tolist()
    made = llamazoo.generate(model, prompt, max_new_tokens=20, stop_ids=())
    text = torch.tensor([prompt + made.tokens[0]])
    expected = model(text[:, :-1]).argmax(-1)[0, 11:].tolist()
    assert made.tokens[0] == expected


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"type": "linear", "factor": 0.5}, {}, r"position\.scaling\.factor: input should be greater than or equal to 1, found 0\.5"),
    ({"type": "linear"}, {}, r"position\.scaling\.factor: is required"),
    ({"type": "linear", "factr": 2.0, "factor": 2.0}, {}, r"position\.scaling\.factr: no such field"),
    ({"type": "cubic", "factor": 2.0}, {}, r"position\.scaling: input tag 'cubic' .* expected tags: 'linear', 'dynamic', 'llama3'"),
    ({**SCALINGS[2], "high_freq_factor": 1.0}, {}, r"scaling\.high_freq_factor: 1 has to be more than low_freq_factor \(1\)"),
    ({**SCALINGS[3], "beta_fast": 1.0}, {}, r"scaling\.beta_fast: 1 has to be more than beta_slow \(1\)"),
    ({**SCALINGS[3], "mscale": 1.0}, {}, r"scaling\.mscale: mscale and mscale_all_dim go together; give both or neither"),
    ({**SCALINGS[4], "attention_factor": 1.0}, {}, r"scaling\.attention_factor: is what mscale and mscale_all_dim would say; give either"),
    ({**SCALINGS[3]}, {"theta": 1.0}, r"scaling\.type: yarn needs frequencies that fall .* a theta of more than 1; found 1"),
    ({**SCALINGS[1]}, {"theta": 0.5}, r"scaling\.type: dynamic needs frequencies that fall"),
    ({**SCALINGS[1]}, {"fraction": 0.0625}, r"scaling\.type: dynamic needs two pairs of features or more .* 2 features are rotated"),
    ({**SCALINGS[7]}, {"fraction": 0.5}, r"scaling\.short_factor: has 16 factors for the 8 pairs of 16 rotated features of a head"),
    ({**SCALINGS[7], "long_factor": [1.0]}, {}, r"scaling\.long_factor: has 1 factors for the 16 pairs"),
    ({**SCALINGS[7], "original": 1}, {}, r"scaling\.original: input should be greater than or equal to 2"),
]


@pytest.mark.parametrize(("scaling", "rope", "message"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_scaling_that_cannot_work_is_refused_by_its_field(scaling: dict[str, Any], rope: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        model_of(scaling, rope=rope)


def test_one_option_of_a_scaling_can_be_changed_and_is_kept_in_the_canonical_form() -> None:
    spec = llamazoo.load_spec("llama-tiny", {"position": {"type": "rope", "scaling": SCALINGS[3]}})
    changed = llamazoo.load_spec(spec, {"position.scaling.factor": 8.0})
    assert changed.canonical()["position"]["scaling"]["factor"] == 8.0
    assert llamazoo.load_spec(changed.canonical()) == changed


@pytest.fixture
def frames() -> Iterator[Callable[[llamazoo.Decoder], CompileCounterWithBackend]]:
    """Compiles a model's core, and counts how often; what was compiled before or here is not kept."""
    torch.compiler.reset()

    def compiled(model: llamazoo.Decoder) -> CompileCounterWithBackend:
        counter = CompileCounterWithBackend("eager")
        model.core = torch.compile(model.core, backend=counter, fullgraph=True, dynamic=True)  # type: ignore[method-assign]
        return counter

    yield compiled
    torch.compiler.reset()


@torch.no_grad()
@pytest.mark.parametrize(
    ("scaling", "times"),
    [
        (None, 1),
        (SCALINGS[3], 1),
        ({"type": "dynamic", "factor": 2.0, "original": 14}, 1),
        ({"type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original": 14}, 2),  # each list once
    ],
    ids=lambda v: str(v["type"]) if isinstance(v, dict) else str(v),
)
def test_calls_of_any_length_compile_once_for_each_set_of_frequencies(scaling: dict[str, Any] | None, times: int, frames: Any) -> None:
    model, reference = model_of(scaling), model_of(scaling)
    counter = frames(model)
    for length in (9, 12, 17, 21, 11):
        assert (model(tokens_of(length)) - reference(tokens_of(length))).abs().max() < 1e-10
    assert counter.frame_count == times
