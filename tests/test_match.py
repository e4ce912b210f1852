"""Variants of the base's size: every part is matched within 0.5 %, or the refusal says why not."""

from typing import Any

import pytest
import torch
from counting import SPEC
from torch import Tensor, nn

import llamazoo
from llamazoo.ablation.match import STEPS, TOLERANCE, match, size_of

KINDS = ("attention", "block", "feed_forward", "norm", "position")
OFFERS = [(kind, offer) for kind, offer in llamazoo.default_registry().everything() if kind in KINDS]
SEQ = 256

# What has to be refused, and why: latents of DeepSeek's widths are larger than the whole of llama-tiny's layers.
REFUSED = {("llama-tiny", name): r"with hidden_dim 1, the smallest, still [0-9,]+ \([0-9.]+% more\)" for name in ("latent", "mla")}


def changed(base: str, kind: str, offer: Any) -> llamazoo.ArchitectureSpec:
    """The base with that part, and without a position that the part does not carry out."""
    alone = kind == "attention" and "rotate" not in offer.component.honours
    return llamazoo.load_spec(base, {kind: offer.qualified(offer.name)} | ({"position": "none"} if alone else {}))


@pytest.mark.parametrize("what", ["parameters", "flops"])
@pytest.mark.parametrize("zoo", ["llama-tiny", "llama-7b"])
@pytest.mark.parametrize(("kind", "offer"), OFFERS, ids=[f"{kind}-{offer.qualified(offer.name)}" for kind, offer in OFFERS])
def test_every_part_is_matched_or_its_refusal_says_why(kind: str, offer: Any, zoo: str, what: Any) -> None:
    base, variant = llamazoo.load_spec(zoo), changed(zoo, kind, offer)
    if (zoo, offer.name) in REFUSED:
        with pytest.raises(llamazoo.SpecError, match=REFUSED[zoo, offer.name]):
            match(base, variant, what, SEQ)
        return
    spec, matched = match(base, variant, what, SEQ)
    assert abs(matched.off) <= TOLERANCE
    assert (size_of(base, what, SEQ), size_of(spec, what, SEQ)) == (matched.target, matched.found)
    assert matched.off == pytest.approx((matched.found - matched.target) / matched.target)
    near = abs(size_of(variant, what, SEQ) / matched.target - 1) <= TOLERANCE
    assert (spec is variant) == (matched.field is None) == near
    if not near:
        assert (matched.field, spec.hidden_dim) == ("hidden_dim", matched.value)
        assert llamazoo.load_spec(spec, {"hidden_dim": variant.hidden_dim}) == variant
        assert llamazoo.load_spec(spec.canonical()) == spec


def test_the_width_is_the_coarsest_that_is_near_enough() -> None:
    base = llamazoo.load_spec("llama-tiny")
    for change in ({"feed_forward": "mlp"}, {"position": "learned"}, {"dim": 112}):
        variant = llamazoo.load_spec(base, change)
        _, matched = match(base, variant)
        assert matched.value is not None
        first = max(8, matched.value // 64 * 64 - 64)
        sizes = {n: size_of(llamazoo.load_spec(variant, {"hidden_dim": n}), "parameters") for n in range(first, first + 193, 8)}
        near = {n for n, size in sizes.items() if abs(size / matched.target - 1) <= TOLERANCE}
        step = next(step for step in STEPS if matched.value % step == 0)
        assert matched.value in near or step < 8
        assert not [n for n in near if any(n % coarser == 0 for coarser in STEPS if coarser > step)]
        assert all(abs(sizes[n] - matched.target) >= abs(matched.found - matched.target) for n in near if n % step == 0)


def test_swiglu_and_mlp_come_to_the_same_number_of_parameters() -> None:
    base = llamazoo.load_spec("llama-7b")
    spec, matched = match(base, llamazoo.load_spec(base, {"feed_forward": {"type": "mlp", "activation": "gelu"}}))
    assert (spec.hidden_dim, matched.value, matched.found) == (11008 * 3 // 2, 16512, llamazoo.describe(base).parameters)


def test_operations_are_counted_at_the_trained_length() -> None:
    base = llamazoo.load_spec("llama-tiny")
    _, matched = match(base, base, "flops", 64)
    assert matched.target == llamazoo.describe(llamazoo.load_spec(base, {"max_seq_len": 64})).flops_per_token
    assert matched.target < llamazoo.describe(base).flops_per_token == match(base, base, "flops")[1].target


def test_parameters_count_all_experts_and_operations_the_chosen_ones() -> None:
    base = llamazoo.load_spec("llama-7b")
    variant = llamazoo.load_spec(base, {"feed_forward": {"type": "experts", "n_experts": 8, "top_k": 2}})
    by_size, by_work = match(base, variant, "parameters")[1].value, match(base, variant, "flops")[1].value
    assert (by_size, by_work) == (11008 // 8, 11008 // 2)


def test_positions_that_training_never_reaches_are_not_counted() -> None:
    """A table for 512 tokens, of which texts of 128 use a quarter, is not paid for with the feed-forward."""
    base = llamazoo.load_spec("llama-tiny", {"max_seq_len": 512, "dim": 64, "hidden_dim": 176, "n_heads": 4, "n_kv_heads": 4})
    written = llamazoo.load_spec(base, {"position": "learned"})
    spec, matched = match(base, written, "parameters", 128)
    short = match(base, llamazoo.load_spec(written, {"max_seq_len": 128}), "parameters", 128)
    assert (matched.beyond, short[1].beyond) == (384 * 64, 0)
    assert (matched.value, matched.found) == (short[1].value, short[1].found)
    assert llamazoo.describe(spec).parameters == matched.found + matched.beyond
    assert match(base, written, "parameters")[1].beyond == 0, "at its whole context"
    assert match(base, written, "flops", 128)[1].beyond == 0, "operations know of no table"
    assert match(base, written, "none", 128)[1].found == llamazoo.describe(written).parameters - 384 * 64


@pytest.mark.parametrize("length", [2, 3, 12, 40])
@pytest.mark.parametrize("position", ["learned", {"type": "t5", "buckets": 8, "max_distance": 20}], ids=["learned", "t5"])
def test_what_is_beyond_a_length_is_what_gets_no_gradient_at_that_length(position: Any, length: int) -> None:
    model = llamazoo.build_model({**SPEC, "max_seq_len": 40, "position": position})
    tokens = torch.randint(0, 11, (64, length), generator=torch.Generator().manual_seed(0))
    model.loss(tokens, (3 * tokens + 1) % 11).backward()
    (part,) = (each for each in model.modules() if isinstance(each, llamazoo.Position))
    reached = int((part.weight.grad != 0).any(1).sum())
    assert part.beyond(length) == (len(part.weight) - reached) * part.weight.shape[1]


def test_without_matching_a_variant_stays_as_it_is_and_is_told_by_how_much_it_is_off() -> None:
    base, variant = llamazoo.load_spec("llama-tiny"), llamazoo.load_spec("llama-tiny", {"feed_forward": "mlp"})
    spec, matched = match(base, variant, "none")
    assert spec is variant
    assert (matched.what, matched.field, matched.found) == ("none", None, llamazoo.describe(variant).parameters)
    assert matched.off == pytest.approx(-4 * 352 * 128 / llamazoo.describe(base).parameters)


# Widths that parts have for themselves


def test_a_width_of_the_part_itself_is_what_is_solved_for() -> None:
    base = llamazoo.load_spec("llama-tiny")
    spec, matched = match(base, llamazoo.load_spec(base, {"feed_forward": {"type": "mlp", "hidden_dim": 100}}))
    assert (matched.field, matched.value, spec.hidden_dim) == ("feed_forward.hidden_dim", 528, 352)
    assert spec.canonical()["feed_forward"]["hidden_dim"] == 528


def test_widths_of_some_layers_grow_in_proportion_to_the_others() -> None:
    base = llamazoo.load_spec("llama-tiny")
    changes = {"hidden_dim": 128, "layers": [{"at": 0, "feed_forward": {"hidden_dim": 256}}, {"at": 1, "norm": "layernorm"}]}
    spec, matched = match(base, llamazoo.load_spec(base, changes))
    assert (matched.field, matched.value) == ("hidden_dim", spec.hidden_dim)
    assert abs(matched.off) <= TOLERANCE
    assert spec.canonical()["layers"][0]["feed_forward"]["hidden_dim"] == 2 * spec.hidden_dim
    assert spec.layer(1).norm.type == "layernorm"


def test_a_width_that_no_layer_takes_is_left_alone() -> None:
    base = llamazoo.load_spec("llama-tiny")
    spec, matched = match(base, llamazoo.load_spec(base, {"layers": [{"at": "0:4", "feed_forward": {"hidden_dim": 64}}]}))
    assert (matched.field, matched.value, matched.off) == ("layers.0.feed_forward.hidden_dim", 352, 0.0)
    assert spec.hidden_dim == 352
    assert spec.canonical()["layers"][0]["feed_forward"]["hidden_dim"] == 352


def test_shared_experts_keep_their_share() -> None:
    base = llamazoo.load_spec("llama-7b")
    experts = {"type": "experts", "hidden_dim": 2048, "shared": {"type": "swiglu", "hidden_dim": 4096}}
    spec, matched = match(base, llamazoo.load_spec(base, {"feed_forward": experts}))
    part = spec.canonical()["feed_forward"]
    assert (matched.field, part["hidden_dim"], part["shared"]["hidden_dim"]) == (
        "feed_forward.hidden_dim",
        matched.value,
        2 * part["hidden_dim"],
    )
    assert abs(matched.off) <= TOLERANCE


# Strangers' parts


class Plain(llamazoo.FeedForward):
    """W x, as wide as the model."""

    name = "plain"

    def __init__(self, options: Any, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.w = nn.Linear(site.dim, self.width(site), bias=False)

    def width(self, site: llamazoo.Site) -> int:
        return site.dim

    def forward(self, x: Tensor, step: llamazoo.Step) -> Tensor:
        return self.w(x)


class Rounded(Plain):
    """A width that is rounded up to the next multiple of 256."""

    name = "rounded"

    def width(self, site: llamazoo.Site) -> int:
        return -(-(site.hidden_dim or 4 * site.dim) // 256) * 256


class Picky(Plain):
    """Only multiples of 8 will do."""

    name = "picky"

    @classmethod
    def check(cls, options: Any, site: llamazoo.Site) -> None:
        if site.hidden_dim is None or site.hidden_dim % 8:
            raise llamazoo.refuse("hidden_dim", f"{site.hidden_dim} is no multiple of 8")

    def width(self, site: llamazoo.Site) -> int:
        return site.hidden_dim or 0


class Open(Plain):
    """As wide as the spec says, or four times the model."""

    name = "open"

    def width(self, site: llamazoo.Site) -> int:
        return site.hidden_dim or 4 * site.dim


class Squared(Plain):
    """A size that grows with the square of the width."""

    name = "squared"

    def __init__(self, options: Any, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.inner = nn.Linear(site.hidden_dim or 1, site.hidden_dim or 1, bias=False)


REGISTRY = llamazoo.default_registry().extended(Plain, Rounded, Picky, Open, Squared)


def matched_to(base: llamazoo.ArchitectureSpec | str, **changes: Any) -> Any:
    base = llamazoo.load_spec(base, registry=REGISTRY)
    return match(base, llamazoo.load_spec(base, changes, registry=REGISTRY))[1]


class Greedy(Plain):
    """Says that it has more parameters for longer texts than it has at all."""

    name = "greedy"

    def beyond(self, length: int) -> int:
        return self.w.weight.numel() + 1


def test_a_part_that_leaves_out_more_parameters_than_it_has_is_refused() -> None:
    spec = llamazoo.load_spec("llama-tiny", {"feed_forward": "greedy"}, registry=REGISTRY.extended(Greedy))
    assert llamazoo.describe(spec).beyond_parameters == 0, "nobody asked"
    with pytest.raises(llamazoo.PluginError, match=r"the feed_forward 'greedy': beyond\(128\) is 16385, of 16384 parameters; say how many"):
        llamazoo.describe(spec, length=128)


def test_a_feed_forward_without_a_width_is_refused_with_both_sizes() -> None:
    with pytest.raises(
        llamazoo.SpecError, match=r"match: the base has 869,504 parameters, this 394,368 \(54\.6% fewer\), and nothing .* hidden_dim"
    ):
        matched_to("llama-tiny", feed_forward="plain")


def test_steps_that_are_too_coarse_are_refused_with_the_nearest() -> None:
    with pytest.raises(llamazoo.SpecError, match=r"no nearer than 853,120 \(1\.9% fewer\), with hidden_dim 1024, which is not"):
        matched_to("llama-tiny", feed_forward="rounded")


def test_a_size_that_grows_in_steps_is_matched_where_they_are_fine_enough() -> None:
    matched = matched_to("llama-7b", feed_forward="rounded")
    assert (matched.value, matched.off) == (3 * 11008, 0.0)


def test_a_width_that_a_part_refuses_is_passed_over() -> None:
    matched = matched_to("llama-tiny", feed_forward="picky")
    assert matched.value % 8 == 0
    assert abs(matched.off) <= TOLERANCE


def test_a_size_that_is_no_line_is_matched_too() -> None:
    matched = matched_to("llama-tiny", feed_forward="squared")
    assert 300 < matched.value < 400
    assert abs(matched.off) <= TOLERANCE


def test_a_spec_without_any_width_is_given_one() -> None:
    whole = llamazoo.load_spec("llama-tiny").canonical()
    bare = {**{name: value for name, value in whole.items() if name != "hidden_dim"}, "feed_forward": "open"}
    base = llamazoo.load_spec(bare, registry=REGISTRY)
    _, matched = match(base, llamazoo.load_spec({**bare, "n_layers": 3}, registry=REGISTRY))
    assert matched.field == "hidden_dim"
    assert 3 * (matched.value or 0) > 4 * 512
    assert abs(matched.off) <= TOLERANCE


def test_a_variant_that_is_too_large_even_with_the_smallest_width_is_refused() -> None:
    with pytest.raises(llamazoo.SpecError, match=r"this [0-9,]+ \([0-9.]+% more\), and with hidden_dim 1, the smallest, still"):
        matched_to("llama-tiny", vocab_size=8192)


def test_matching_allocates_nothing() -> None:
    before = torch.get_default_device()
    assert matched_to("llama-3.1-405b", norm="layernorm").field is None
    assert torch.get_default_device() == before
