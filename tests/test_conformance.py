"""Every built-in part keeps the contract, alone and in combination."""

import itertools
import re
from typing import Any, Literal

import pytest
import torch
from broken import (
    BROKEN,
    Fading,
    InPlace,
    Leaves,
    Mix,
    MixesTheCall,
    Nearest,
    NeverUsed,
    PeeksAhead,
    Plain,
    Raises,
    Reseeds,
    Scale,
    SetsTheDefault,
    Waves,
)
from pydantic import Field

import llamazoo
from llamazoo.testing import CHECKS, applicable, check_component, failures, subject, told

REGISTRY = llamazoo.default_registry()
BUILT_IN = sorted({o.component for o in REGISTRY.offers() if o.distribution == "llamazoo"}, key=lambda c: (c.kind, c.name))
LONG = {"type": "longrope", "short_factor": [1.0, 1.1, 1.5, 2.0], "long_factor": [1.0, 2.0, 5.0, 9.0], "original": 12}
FURTHER_OPTIONS = {
    ("norm", "rmsnorm"): [{"unit_offset": True}],
    ("norm", "layernorm"): [{"bias": False}],
    ("activation", "gelu"): [{"approximate": "tanh"}],
    ("feed_forward", "gated"): [{"activation": a, "bias": True} for a in ("gelu", "relu", "sigmoid", "identity")],
    ("activation", "swish"): [{"beta": 1.702}],
    ("feed_forward", "experts"): [
        {"n_experts": 5, "top_k": 1, "bias": True, "limit": 0.5, "up_offset": 1.0, "activation": "swish"},
        {"shared": "swiglu", "router": "grouped", "balance": 0.1, "sequence_balance": 0.1, "z_loss": 0.01},
    ],
    ("router", "topk"): [{"normalize": False, "bias": True, "scale": 2.0}],
    ("router", "grouped"): [
        {"n_groups": 4, "top_groups": 2, "scale": 2.5},
        {"scoring": "softmax", "n_groups": 2, "group_score": "max", "correction": False, "normalize": False},
    ],
    ("feed_forward", "mlp"): [{"activation": "relu2", "bias": True}],
    ("position", "rope"): [
        {"layout": "interleaved"},
        {"fraction": 0.5},
        {"fraction": 0.25, "layout": "interleaved"},
        {"scaling": {"type": "linear", "factor": 4.0}},
        {"scaling": {"type": "dynamic", "factor": 2.0, "original": 10}},
        {"scaling": {"type": "dynamic", "factor": 3.0, "original": 7}, "fraction": 0.5, "layout": "interleaved"},
        {"scaling": {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original": 16}},
        {"scaling": {"type": "yarn", "factor": 4.0, "original": 16}, "layout": "interleaved"},
        {"scaling": LONG},
        {"scaling": {**LONG, "original": 30, "attention_factor": 1.5}, "layout": "interleaved"},
    ],
    ("position", "t5"): [{"buckets": 8, "max_distance": 12}],
    ("position", "alibi"): [{"bias_max": 4.0}, {"scale": 0.3}],
    ("block", "prenorm"): [{"residual_scale": 0.22}],
    ("block", "parallel"): [{"shared_norm": True}],
    ("embedding", "table"): [{"scale": "sqrt_dim"}, {"scale": 0.5, "norm": "layernorm"}],
    ("head", "linear"): [{"tied": True}, {"bias": True, "scale": 0.5, "softcap": 5.0}],
    ("kernel", "auto"): [{"candidates": ["eager"]}],
    ("attention", "multihead"): [
        {"n_kv_heads": 1},
        {"n_kv_heads": 4, "qkv_bias": True, "out_bias": True},
        {"qk_norm": "rmsnorm", "scale": 0.2},
        {"qk_norm": "rmsnorm", "qk_norm_over": "all"},
        {"qk_norm": "layernorm", "qk_norm_over": "all", "n_kv_heads": 1, "clip": 1.0},
        {"sinks": True, "window": 5},
        {"softcap": 3.0},
        {"window": 5},
        {"window": 1},
    ],
    # In small models the latents are wide or narrow beside the heads: keys and values made from them, or not, even without a state.
    ("attention", "latent"): [
        {"q_rank": 10, "kv_rank": 12, "nope_dim": 6, "v_dim": 4},
        {"q_rank": 10, "kv_rank": 6, "nope_dim": 10, "v_dim": 12, "bias": True, "kernel": "eager"},
        {"kv_rank": 12, "nope_dim": 6, "v_dim": 10, "window": 5, "scale": 0.2},
    ],
}
QUICK = [name for name in CHECKS if name != "compiled"]  # which takes longer than all others, and depends least on options
CASES = [(c, o) for c in BUILT_IN for o in [{}, *FURTHER_OPTIONS.get((c.kind, c.name), [])]]


@pytest.mark.parametrize(("component", "options"), CASES, ids=lambda v: v.__name__ if isinstance(v, type) else str(v or ""))
def test_built_in_components_keep_the_contract(component: type[llamazoo.Component], options: dict[str, object]) -> None:
    tried = subject(component, options)
    found = failures(tried, [name for name in applicable(tried) if not options or name in QUICK])
    assert found == [], told(found)


INTERLEAVED, PARTIAL = {"type": "rope", "layout": "interleaved"}, {"type": "rope", "fraction": 0.5}
AROUND = [
    (("embedding", "table"), {"scale": 2.0}, {"head": {"tied": True}}),
    (("head", "linear"), {"tied": True, "bias": True}, {"embedding": {"scale": "sqrt_dim"}}),
    (("kernel", "eager"), {}, {"position": "alibi", "attention": {"type": "multihead", "kernel": "eager", "n_kv_heads": 1, "window": 7}}),
    (("kernel", "sdpa"), {}, {"position": "t5", "attention": {"type": "multihead", "kernel": "sdpa", "n_kv_heads": 4}}),
    (
        ("attention", "latent"),
        {"q_rank": 10, "kv_rank": 12, "nope_dim": 6, "v_dim": 4},
        {"position": {"type": "rope", "layout": "interleaved"}},
    ),
    (("attention", "latent"), {"kv_rank": 12, "nope_dim": 6, "v_dim": 4, "window": 7}, {"position": "alibi", "block": "parallel"}),
    (("attention", "latent"), {"kv_rank": 5, "nope_dim": 6, "v_dim": 7}, {"position": PARTIAL, "n_heads": 6}),
    (("norm", "layernorm"), {}, {"attention": {"type": "multihead", "qk_norm": "layernorm"}, "block": "postnorm"}),
]


@pytest.mark.parametrize(("key", "options", "around"), AROUND, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_built_in_components_keep_the_contract_in_other_surroundings(
    key: tuple[str, str], options: dict[str, object], around: dict[str, object]
) -> None:
    tried = subject(REGISTRY.find(*key).component, options, around=around)
    found = failures(tried, [name for name in applicable(tried) if name in QUICK])
    assert found == [], told(found)


POSITIONS = ["rope", {"type": "rope", "layout": "interleaved", "fraction": 0.5}, "learned", "sinusoidal", "alibi", "t5", "none"]
ATTENTIONS = [
    {"kernel": "sdpa"},
    {"kernel": "eager", "n_kv_heads": 1},
    {"window": 4, "kernel": "sdpa"},
    {"window": 6, "kernel": "eager", "softcap": 4.0, "qk_norm": "rmsnorm", "sinks": True},
]
BLOCKS = ["prenorm", "postnorm", "reordered", "sandwich", "parallel", {"type": "parallel", "shared_norm": True}]


@pytest.mark.parametrize("position", POSITIONS, ids=str)
@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_cached_equals_uncached_for_every_position_attention_and_block(
    position: object, attention: dict[str, object], block: object
) -> None:
    multihead = REGISTRY.find("attention", "multihead").component
    tried = subject(multihead, attention, around={"position": position, "block": block})
    found = failures(tried, ["cached", "padding"])
    assert found == [], told(found)


def test_layers_may_differ_in_position_window_and_parts() -> None:
    multihead = REGISTRY.find("attention", "multihead").component
    around = {
        "n_layers": 4,
        "positions": {"near": {"type": "rope", "theta": 100.0}, "far": "alibi", "nowhere": "none"},
        "position": "near",
        "layers": [
            {"every": 2, "offset": 1, "position": "far", "attention": {"window": None}},
            {"at": -1, "feed_forward": "mlp", "block": "sandwich", "position": "nowhere", "norm": "layernorm"},
        ],
    }
    tried = subject(multihead, {"window": 5}, around=around)
    found = failures(tried, QUICK)
    assert found == [], told(found)


def test_layers_without_positions_between_rotated_ones_keep_the_contract() -> None:
    around = {
        "n_layers": 4,
        "positions": {"rope": {"type": "rope", "theta": 100.0}, "nope": "none"},
        "position": "rope",
        "layers": [{"every": 4, "offset": 3, "position": "nope"}],
    }
    tried = subject(REGISTRY.find("attention", "multihead").component, {}, around=around)
    assert [tried.spec.layer(i).position for i in range(4)] == ["rope", "rope", "rope", "nope"]
    checks = ["causality", "batch", "cached", "padding", "segments", "state_rows", "rewind", "splits", "round_trip"]
    found = failures(tried, checks)
    assert found == [], told(found)


@pytest.mark.parametrize("component", [Plain, Fading, Mix, Nearest, Scale, Waves], ids=lambda c: c.name)
def test_a_strangers_component_keeps_the_contract_too(component: type[llamazoo.Component]) -> None:
    check_component(component)


def test_a_strangers_recurrent_mixer_keeps_the_contract_in_other_surroundings() -> None:
    found = failures(subject(Fading, {"decay": 0.5}, around={"position": "learned", "block": "parallel"}), QUICK)
    assert found == [], told(found)


@pytest.mark.parametrize(("component", "check"), BROKEN, ids=lambda v: v if isinstance(v, str) else v.name)
def test_each_check_catches_its_bug_by_name(component: type[llamazoo.Component], check: str) -> None:
    found = CHECKS[check](subject(component))
    assert {failure.check for failure in found} == {check}
    for failure in found:
        assert all((failure.done, failure.expected, failure.deviation, failure.cause))


def test_every_check_is_proven_by_something_broken() -> None:
    assert {check for _, check in BROKEN} == set(CHECKS)


def test_a_component_that_breaks_the_contract_is_refused_with_all_that_it_breaks() -> None:
    with pytest.raises(llamazoo.ConformanceError, match="activation 'in_place' breaks the contract:\n  input_unchanged: called forward"):
        check_component(InPlace)


def test_a_failure_says_what_was_done_expected_and_found_and_why() -> None:
    failure = CHECKS["causality"](subject(PeeksAhead))[0]
    assert str(failure).splitlines() == [
        "causality: changed all tokens after the first 1",
        "    expected: the logits of those before as they were",
        f"    found: {failure.deviation}",
        f"    likely: {failure.cause}",
    ]
    assert re.fullmatch(r"\d\S* off at row \d, token 0, id \d+; at most \S+ is rounding", failure.deviation)
    assert "a token sees a later one" in failure.cause


def test_many_failures_of_one_check_are_told_in_short() -> None:
    found = CHECKS["cached"](subject(MixesTheCall))
    assert len(found) > 3
    assert told(found).count("cached:") == 3
    assert told(found).endswith(f"... and {len(found) - 3} more of this check")


@pytest.mark.parametrize("component", [Raises, Leaves], ids=lambda c: c.name)
def test_whatever_a_component_raises_is_a_failure_and_not_a_crash(component: type[llamazoo.Component]) -> None:
    tried = subject(component)
    found = failures(tried)
    assert {failure.check for failure in found} == set(applicable(tried))
    assert all("broken.py:" in failure.deviation for failure in found if failure.check != "compiled")


def test_an_interrupt_by_the_user_passes() -> None:
    class Interrupted(llamazoo.Activation):
        """Ctrl-C while it runs."""

        name = "interrupted"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_component(Interrupted)


def test_what_a_component_leaves_behind_is_put_back() -> None:
    state, dtype, threads = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    for component in (SetsTheDefault, Reseeds):
        for name in ("shapes", "global_state", "determinism"):
            CHECKS[name](subject(component))
            assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (dtype, threads)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_are_checked_in_whatever_mode_the_caller_is(mode: Any) -> None:
    with mode():
        assert CHECKS["gradients"](subject(Mix)) == []
        assert CHECKS["gradients"](subject(NeverUsed)) != []
        assert CHECKS["cached"](subject(Mix)) == []


def test_only_checks_that_apply_are_run() -> None:
    assert "options" not in applicable(subject(Mix))
    assert "options" in applicable(subject(Fading))
    assert set(applicable(subject(Mix))) == set(CHECKS) - {"options"}


def test_a_name_that_a_built_in_part_has_too_means_the_class_under_test() -> None:
    class RMSNorm(Scale):
        """Not llamazoo's."""

        name = "rmsnorm"

    tried = subject(RMSNorm)
    assert tried.spec.norm.component is RMSNorm
    assert failures(tried, ["shapes", "round_trip"]) == []


def test_parts_that_are_not_installed_come_with_a_registry() -> None:
    class Gated(llamazoo.FeedForward):
        """Its activation is one of the author's own."""

        name = "gated_by_own"

        class Options(llamazoo.ComponentOptions):
            activation: llamazoo.ActivationPart = llamazoo.part("in_place")
            """What acts on x."""

        def __init__(self, options: Options, site: llamazoo.Site) -> None:
            super().__init__(options, site)
            self.activation = site.build(options.activation)

        def forward(self, x: torch.Tensor, step: llamazoo.Step) -> torch.Tensor:
            return self.activation(x.clone())

    with pytest.raises(llamazoo.UnknownComponentError, match="no activation named 'in_place'"):
        subject(Gated)
    assert failures(subject(Gated, registry=REGISTRY.extended(InPlace)), ["cached", "options", "input_unchanged"]) == []


def test_what_is_no_component_is_refused() -> None:
    with pytest.raises(llamazoo.PluginError, match="expected a component class, found"):
        subject(torch.nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(llamazoo.SpecError, match="no such field"):
        subject(Fading, {"decai": 0.5})


class Doubles(llamazoo.Norm):
    """w x, in the manner that the options say."""

    name = "doubles"

    class Options(llamazoo.ComponentOptions):
        factor: float = 1.0
        """What x is multiplied by, if it is asked for."""
        asked: bool = False
        """Whether it is."""
        route: str = Field("plain", pattern="plain|twice", examples=["twice"])
        """How."""
        sizes: list[int] = [1, 2]
        """Added up, and added."""
        gains: dict[str, float] = {"a": 1.0}
        """Multiplied by."""
        limit: Literal["none", "low"] | float | None = None
        """Where x ends."""
        after: list[llamazoo.ActivationPart] = []
        """What acts on the result, in turn."""

    def __init__(self, options: Options, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.after = torch.nn.ModuleList(site.build(part) for part in options.after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        options = self.options
        x = x * options.factor if options.asked else x
        x = (x + x if options.route == "twice" else x) * options.gains.get("a", 0.5) + sum(options.sizes)
        limit = {"none": None, "low": 0.1}.get(options.limit, options.limit)
        x = x if limit is None else x.clamp(max=limit)
        for part in self.after:
            x = part(x)
        return x


def test_options_of_every_sort_are_perturbed() -> None:
    found = CHECKS["options"](subject(Doubles))
    assert found == [], told(found)


def test_an_option_for_which_no_other_value_is_known_is_told() -> None:
    class Named(Scale):
        """One option, of which only the author knows what it may be."""

        name = "named"

        class Options(llamazoo.ComponentOptions):
            route: str = Field("plain", pattern="^(plain|twice)$")
            """How."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (2 if self.options.route == "twice" else 1)

    found = CHECKS["options"](subject(Named))
    assert [failure.done for failure in found] == ["set the option route to other values (no value besides its own fits its type)"]
    assert "Field(examples=[...])" in found[0].cause


def test_every_kind_has_a_built_in_part() -> None:
    kinds = {kind for kind, _ in itertools.groupby(c.kind for c in BUILT_IN)}
    assert kinds == {"activation", "attention", "block", "embedding", "feed_forward", "head", "kernel", "norm", "position", "router"}
