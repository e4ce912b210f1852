"""The decoder beyond what the conformance kit checks: states, losses, tying, compiling, first values, and what a model costs."""

import copy
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

import llamazoo
from llamazoo.contract.step import Step
from llamazoo.errors import CannotRewind, ContextLengthError, InputError, ResourceLimitError, StateError
from llamazoo.spec.patch import merge
from llamazoo.testing.kit import BASE as TINY

BASE = {**TINY, "max_seq_len": 64}

VOCABULARY = BASE["vocab_size"]
WINDOW, CHUNK = 4, 3
RING = WINDOW + CHUNK - 1
MIXED = {"attention": {"window": WINDOW}, "n_layers": 3, "layers": [{"at": 1, "attention": {"window": None}}]}


def spec(**changes: Any) -> dict[str, Any]:
    return merge(BASE, changes)


def build(dtype: torch.dtype = torch.float64, **changes: Any) -> llamazoo.Decoder:
    return llamazoo.build_model(spec(**changes), dtype=dtype, device="cpu").eval()


@pytest.fixture(scope="module")
def dense() -> llamazoo.Decoder:
    """Tests must not change it."""
    return build()


@pytest.fixture(scope="module")
def windowed() -> llamazoo.Decoder:
    """Window layers around a full one; tests must not change it."""
    return build(**MIXED)


def text(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def filled(model: llamazoo.Decoder, tokens: Tensor, *, capacity: int = 40, chunk: int = CHUNK) -> llamazoo.DecoderState:
    state = model.new_state(len(tokens), capacity, chunk=chunk)
    model(tokens, state=state)
    return state


def continues(model: llamazoo.Decoder, state: llamazoo.DecoderState, held: Tensor, seed: int = 1, length: int = 8) -> Tensor:
    """Check that the state goes on as if it had just read `held`; return all that it holds then."""
    more = text(len(held), length, seed)
    whole = torch.cat((held, more), 1)
    with torch.no_grad():
        found = torch.cat([model(piece, state=state) for piece in more.split([1, 5, 2], 1)], 1)
        close(found, model(whole)[:, held.shape[1] :])
    assert state.lengths == [whole.shape[1]] * len(held)
    return whole


# Going back


@pytest.mark.parametrize("length", [0, 1, 7, 19, 20])
def test_a_dense_state_rewinds_to_any_length_and_goes_on_as_if_never_further(length: int, dense: llamazoo.Decoder) -> None:
    tokens = text(2, 20)
    state = filled(dense, tokens)
    state.rewind(length)
    assert state.lengths == [length, length]
    continues(dense, state, tokens[:, :length])


@pytest.mark.parametrize("held", [2, RING - 1, RING, RING + 1, RING + 2, 2 * RING, 20])
@pytest.mark.parametrize("back", [0, 1, CHUNK - 1, CHUNK])
def test_a_ring_rewinds_by_up_to_a_chunk_wherever_it_stands(held: int, back: int, windowed: llamazoo.Decoder) -> None:
    tokens = text(2, held)
    state = filled(windowed, tokens)
    state.rewind(max(held - back, 0))
    continues(windowed, state, tokens[:, : max(held - back, 0)])


@pytest.mark.parametrize("held", [RING + 1, 20])
def test_beyond_a_chunk_a_ring_refuses_to_rewind_and_nothing_has_changed(held: int, windowed: llamazoo.Decoder) -> None:
    tokens = text(2, held)
    state = filled(windowed, tokens)
    back = CHUNK + 1
    with pytest.raises(
        CannotRewind, match=f"layer 0: a window of {WINDOW} tokens keeps what it needs to go back by {CHUNK}, not by {back}"
    ):
        state.rewind([held, held - back])
    assert state.lengths == [held, held]
    continues(windowed, state, tokens)


def test_a_ring_that_has_not_run_on_rewinds_to_any_length(windowed: llamazoo.Decoder) -> None:
    tokens = text(2, RING)
    for length in range(RING + 1):
        state = filled(windowed, tokens)
        state.rewind(length)
        continues(windowed, state, tokens[:, :length])


def test_rewinding_again_counts_from_the_furthest_that_a_ring_has_held(windowed: llamazoo.Decoder) -> None:
    tokens = text(1, 20)
    state = filled(windowed, tokens)
    state.rewind(18)
    with torch.no_grad():
        windowed(text(1, 1, 5), state=state)
    assert state.lengths == [19]
    with pytest.raises(CannotRewind, match="not by 4"):
        state.rewind(16)
    state.rewind(17)
    continues(windowed, state, tokens[:, :17])


def test_rewinding_many_times_by_random_amounts_equals_an_uncached_run(windowed: llamazoo.Decoder) -> None:
    held, furthest = text(2, 9), 9
    state = filled(windowed, held, capacity=60)
    generator = torch.Generator().manual_seed(3)
    for turn in range(12):
        least = max(furthest - CHUNK, 0)
        length = int(torch.randint(least, held.shape[1] + 1, (), generator=generator)) if least <= held.shape[1] else held.shape[1]
        state.rewind(length)
        new = text(2, int(torch.randint(1, 6, (), generator=generator)), 100 + turn)
        held = torch.cat((held[:, :length], new), 1)
        furthest = max(furthest, held.shape[1])
        with torch.no_grad():
            close(windowed(new, state=state), windowed(held)[:, length:])


def test_rows_rewind_by_different_amounts(windowed: llamazoo.Decoder) -> None:
    tokens, more = text(3, 20), text(3, 5, 1)
    state = filled(windowed, tokens)
    lengths = [20, 17, 0]
    state.rewind(lengths)
    with torch.no_grad():
        found = windowed(more, state=state)
        for row, length in enumerate(lengths):
            whole = torch.cat((tokens[row, :length], more[row]))[None]
            close(found[row], windowed(whole)[0, length:])


def test_a_rewind_forward_or_of_other_rows_is_refused(dense: llamazoo.Decoder) -> None:
    state = filled(dense, text(2, 5))
    with pytest.raises(StateError, match="row 0 holds 5 tokens and cannot be rewound to 6"):
        state.rewind(6)
    with pytest.raises(StateError, match="row 1 holds 5 tokens and cannot be rewound to -1"):
        state.rewind([5, -1])
    with pytest.raises(StateError, match="3 lengths for 2 rows"):
        state.rewind([1, 1, 1])
    assert state.lengths == [5, 5]


def test_a_packed_state_rewinds_within_its_last_document_only(dense: llamazoo.Decoder) -> None:
    tokens, more = text(1, 9), text(1, 3, 1)
    numbers = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 2]])
    state = dense.new_state(1, 20)
    dense(tokens, state=state, segments=numbers)
    with pytest.raises(CannotRewind, match="row 0: its last document begins at 4"):
        state.rewind(4)
    assert state.lengths == [9]
    state.rewind(6)
    found = dense(more, state=state, segments=torch.full((1, 3), 2))
    close(found, dense(torch.cat((tokens[:, 4:6], more), 1))[:, 2:].detach())
    state.rewind(0)
    close(dense(tokens, state=state), dense(tokens).detach())


# Rows of a state


def test_rows_that_do_not_exist_are_refused(dense: llamazoo.Decoder) -> None:
    state = filled(dense, text(2, 5))
    for rows in ([2], [-1], [0, 5], []):
        for act in (state.select, state.clear, lambda r: state.put(r, filled(dense, text(1, 2)))):
            with pytest.raises(StateError, match="of a state with the rows 0 to 1"):
                act(rows)
    assert (state.lengths, state.batch) == ([5, 5], 2)


def test_put_needs_equal_capacity_and_chunk_and_as_many_rows(dense: llamazoo.Decoder) -> None:
    state = filled(dense, text(2, 5))
    for other in (filled(dense, text(1, 2), capacity=41), filled(dense, text(1, 2), chunk=CHUNK + 1)):
        with pytest.raises(StateError, match=r"a state of capacity 4[01] and chunk [34] does not fit one of 40 and 3"):
            state.put([0], other)
    with pytest.raises(StateError, match=r"1 rows cannot be put into the rows \[0, 1\]"):
        state.put([0, 1], filled(dense, text(1, 2)))
    with pytest.raises(StateError, match=r"2 rows cannot be put into the rows \[1, 1\]"):
        state.put([1, 1], filled(dense, text(2, 2)))
    assert state.lengths == [5, 5]


def test_put_of_a_packed_state_beside_a_plain_row_is_refused(dense: llamazoo.Decoder) -> None:
    plain = filled(dense, text(2, 5))
    packed = dense.new_state(1, 40, chunk=CHUNK)
    dense(text(1, 3), state=packed, segments=torch.ones(1, 3, dtype=torch.int64))
    with pytest.raises(StateError, match="one state was filled with `segments`, the other without"):
        plain.put([0], packed)
    assert plain.lengths == [5, 5]


def test_a_state_put_over_all_rows_may_be_packed(dense: llamazoo.Decoder) -> None:
    state = filled(dense, text(1, 5))
    packed, tokens, numbers = dense.new_state(1, 40, chunk=CHUNK), text(1, 6), torch.tensor([[0, 0, 0, 1, 1, 1]])
    dense(tokens[:, :5], state=packed, segments=numbers[:, :5])
    state.put([0], packed)
    close(dense(tokens[:, 5:], state=state, segments=numbers[:, 5:]), dense(tokens[:, 3:])[:, 2:].detach())


def test_selected_rows_of_a_ring_go_on_and_the_batch_may_grow(windowed: llamazoo.Decoder) -> None:
    tokens = text(2, 20)
    state = filled(windowed, tokens)
    state.select([1, 1, 0])
    assert state.batch == 3
    continues(windowed, state, tokens[[1, 1, 0]])
    state.select(torch.tensor([2]))
    assert (state.batch, state.lengths) == (1, [28])


def test_a_clone_shares_nothing(windowed: llamazoo.Decoder) -> None:
    tokens = text(2, 12)
    state = filled(windowed, tokens)
    twin = state.clone()
    twin.clear([0])
    twin.rewind([0, 11])
    assert (state.lengths, twin.lengths) == ([12, 12], [0, 11])
    continues(windowed, state, tokens)


def test_a_cleared_state_is_as_new(windowed: llamazoo.Decoder) -> None:
    state = filled(windowed, text(2, 20))
    state.clear()
    assert state.lengths == [0, 0]
    continues(windowed, state, text(2, 0), length=8)


# Limits


def test_a_state_needs_room_and_rows(dense: llamazoo.Decoder) -> None:
    for arguments, name in (((0,), "batch"), ((1, 0), "capacity")):
        with pytest.raises(InputError, match=f"{name} is a whole number from 1, found 0"):
            dense.new_state(*arguments)
    with pytest.raises(InputError, match="chunk is a whole number from 1, found 0"):
        dense.new_state(1, 4, chunk=0)
    with pytest.raises(ContextLengthError, match=r"a cache of 65 tokens is longer than the model's context, max_seq_len 64"):
        dense.new_state(1, 65)
    assert dense.new_state(1).capacity == 64


def test_a_call_for_another_number_of_rows_is_refused(dense: llamazoo.Decoder) -> None:
    state = filled(dense, text(2, 5))
    with pytest.raises(InputError, match="the state holds 2 rows, tokens have 3"):
        dense(text(3, 1), state=state)
    assert state.lengths == [5, 5]


@pytest.mark.parametrize("chunk", [1, 2, CHUNK, 64])
@pytest.mark.parametrize("window", [1, 2, WINDOW])
def test_an_input_longer_than_the_chunk_enters_in_slices(window: int, chunk: int) -> None:
    model, tokens = build(attention={"window": window}), text(2, 30)
    with torch.no_grad():
        state = model.new_state(2, 30, chunk=chunk)
        found = torch.cat((model(tokens[:, :17], state=state), model(tokens[:, 17:], state=state)), 1)
        close(found, model(tokens))


@pytest.mark.parametrize("window", [1, WINDOW])
def test_a_window_state_takes_window_and_chunk_slots_however_long_its_capacity(window: int) -> None:
    model = build(torch.float32, attention={"window": window})
    slot = 2 * BASE["n_layers"] * BASE["n_kv_heads"] * BASE["head_dim"] * 4  # keys and values of one token, in float32
    for capacity in (20, 64):
        assert model.new_state(3, capacity, chunk=5).nbytes == 3 * slot * (window + 5 - 1 + 1)
    assert model.new_state(3, 4, chunk=64).nbytes == 3 * slot * (4 + 1)
    assert build(torch.float32).new_state(3, 20, chunk=5).nbytes == 3 * slot * (20 + 1)


# Gradients and modes


def test_a_state_of_inference_mode_works_outside_and_the_other_way_round(windowed: llamazoo.Decoder) -> None:
    tokens, numbers = text(1, 24), (torch.arange(24) // 9)[None]
    whole = windowed(tokens, segments=numbers).detach()
    for modes in ((True, False), (False, True)):
        with torch.inference_mode(modes[0]):
            state = windowed.new_state(1, 30, chunk=CHUNK)
            first = windowed(tokens[:, :11], state=state, segments=numbers[:, :11])
            state.select([0, 0])
            state.put([1], state.clone() if state.batch == 1 else _one(windowed, tokens[:, :11], numbers[:, :11]))
        with torch.inference_mode(modes[1]):
            state.clear([1])
            state.select([0])
            rest = windowed(tokens[:, 11:], state=state, segments=numbers[:, 11:])
        close(torch.cat((first, rest), 1).clone(), whole)


def _one(model: llamazoo.Decoder, tokens: Tensor, numbers: Tensor) -> llamazoo.DecoderState:
    state = model.new_state(1, 30, chunk=CHUNK)
    model(tokens, state=state, segments=numbers)
    return state


def test_a_cached_call_keeps_no_gradients_and_an_uncached_one_does(dense: llamazoo.Decoder) -> None:
    tokens = text(1, 4)
    state = dense.new_state(1, 8)
    assert not dense(tokens, state=state).requires_grad
    assert all(not s.keys.requires_grad for s in state.layers)
    assert dense(tokens).requires_grad


# Packing and padding


def test_segments_are_all_or_nothing_on_a_state(dense: llamazoo.Decoder) -> None:
    tokens, numbers = text(1, 4), torch.zeros(1, 4, dtype=torch.int64)
    state = filled(dense, tokens)
    with pytest.raises(StateError, match="filled without `segments`; continue it so, or clear it"):
        dense(tokens, state=state, segments=numbers)
    assert state.lengths == [4]
    state.clear()
    dense(tokens, state=state, segments=numbers)
    with pytest.raises(StateError, match="filled with `segments`; continue it so, or clear it"):
        dense(tokens, state=state)
    assert state.lengths == [4]


def test_last_only_is_the_last_logits_of_each_row(windowed: llamazoo.Decoder) -> None:
    tokens = text(3, 9)
    valid = torch.tensor([[True] * 9, [True] * 4 + [False] * 5, [False] * 6 + [True, False, True]])
    for mask, last in ((None, [8, 8, 8]), (valid, [8, 3, 8])):
        whole = windowed(tokens, valid=mask).detach()
        found = windowed(tokens, valid=mask, last_only=True)
        assert found.shape == (3, 1, VOCABULARY)
        close(found[:, 0].detach(), whole[torch.arange(3), last])
        state = windowed.new_state(3, 20, chunk=CHUNK)
        close(windowed(tokens, state=state, valid=mask, last_only=True), found.detach())
        assert state.lengths == ([9, 9, 9] if mask is None else [9, 4, 2])


# Losses


def test_the_loss_is_the_mean_cross_entropy_of_the_next_token(dense: llamazoo.Decoder) -> None:
    tokens = text(2, 7)
    chances = dense(tokens).detach().softmax(-1)
    surprises = [-chances[row, i, tokens[row, i + 1]].log() for row in range(2) for i in range(6)]
    close(dense.loss(tokens).detach(), torch.stack(surprises).mean())


def test_targets_of_minus_100_are_not_learned_from(dense: llamazoo.Decoder) -> None:
    tokens, targets = text(2, 5), text(2, 5, 1)
    ignored = targets.masked_fill(torch.tensor([[True, False, True, False, False]] * 2), -100)
    chances = dense(tokens).detach().log_softmax(-1)
    kept = [-chances[row, i, targets[row, i]] for row in range(2) for i in (1, 3, 4)]
    close(dense.loss(tokens, ignored).detach(), torch.stack(kept).mean())
    close(dense.loss(tokens, targets).detach(), F.cross_entropy(chances.flatten(0, 1), targets.flatten()))


def test_no_document_predicts_the_next_one(dense: llamazoo.Decoder) -> None:
    documents = [text(1, n, n) for n in (4, 6, 3)]
    numbers = torch.cat([torch.full((1, d.shape[1]), n) for n, d in zip((5, 2, 5), documents, strict=True)], 1)
    lost = sum(dense.loss(d).detach() * (d.shape[1] - 1) for d in documents)
    close(dense.loss(torch.cat(documents, 1), segments=numbers).detach(), lost / 10)


def test_a_loss_needs_something_to_predict(dense: llamazoo.Decoder) -> None:
    with pytest.raises(InputError, match="a row of one token has no next token to predict"):
        dense.loss(text(2, 1))
    with pytest.raises(InputError, match=r"targets have the shape \[2, 4\], tokens \[2, 5\]"):
        dense.loss(text(2, 5), text(2, 4))


class Balanced(llamazoo.FeedForward):
    """Adds the mean square of its output to the loss, as a router would add its balance."""

    name = "balanced"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.layer = site.layer
        self.mix = torch.nn.Linear(site.dim, site.dim)
        self.noted: list[Tensor] = []

    def forward(self, x: Tensor, step: llamazoo.Step) -> Tensor:
        y = self.mix(x).tanh()
        if step.losses is not None:
            self.noted.append(y.detach().square().mean())
            step.losses.add(f"balanced {self.layer}", y.square().mean())
        return y


def test_auxiliary_losses_are_added_once_also_where_layers_are_recomputed() -> None:
    registry = llamazoo.default_registry().extended(Balanced)
    found = llamazoo.load_spec(spec(feed_forward="balanced", n_layers=3, attention={"window": 3}), registry=registry)
    tokens = text(2, 8)
    losses, gradients = [], []
    for recomputed in (False, True):
        model = llamazoo.build_model(found, dtype=torch.float64, registry=registry)
        if recomputed:
            for block in model.blocks:
                block.forward = _recomputed(block.forward)
        plain = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        assert all(not block.feed_forward.noted for block in model.blocks)
        with set_checkpoint_early_stop(False):  # so that the layers' second run adds its losses too
            loss = model.loss(tokens)
        extra = sum(block.feed_forward.noted[-1] for block in model.blocks)
        close(loss.detach(), plain.detach() + extra)
        loss.backward()
        assert [len(block.feed_forward.noted) for block in model.blocks] == [1 + recomputed] * 3
        losses.append(loss.detach())
        gradients.append([p.grad for p in model.parameters()])
    assert torch.equal(*losses)
    for one, other in zip(*gradients, strict=True):
        close(one, other)


def _recomputed(forward: Any) -> Any:
    return lambda *arguments: checkpoint(forward, *arguments, use_reentrant=False)


# Names and sharing


def test_the_state_dict_names_each_tensor_by_its_place_in_the_walk() -> None:
    names = set(build(positions={"near": "alibi", "far": "t5"}, position="near", layers=[{"at": 1, "position": "far"}]).state_dict())
    layer = ["attention_norm.weight", "feed_forward_norm.weight"]
    layer += [f"attention.{x}.weight" for x in "qkvo"] + [f"feed_forward.{x}.weight" for x in ("gate", "up", "down")]
    expected = {f"blocks.{i}.{name}" for i in (0, 1) for name in layer}
    expected |= {"embedding.weight", "positions.at_far.weight", "final_norm.weight", "head.weight"}
    assert names == expected


def test_computed_buffers_are_in_no_state_dict() -> None:
    assert not [name for name in build(position="rope").state_dict() if "positions" in name]
    assert not [name for name in build(position="alibi").state_dict() if "positions" in name]


def _tied(model: llamazoo.Decoder) -> bool:
    names = [name for name, _ in model.named_parameters()]
    return model.head.weight is model.embedding.weight and "head.weight" not in names and "embedding.weight" in names


def test_a_tied_head_stays_tied(tmp_path: Any) -> None:
    model = build(head={"tied": True})
    assert _tied(model)
    assert _tied(model.to(torch.float32))
    assert _tied(model.double())
    assert _tied(copy.deepcopy(model))
    assert _tied(build(torch.bfloat16, head={"tied": True}))
    assert _tied(llamazoo.build_model(spec(head={"tied": True}), device="meta"))
    llamazoo.save_model(model, tmp_path / "tied")
    again = llamazoo.load_model(tmp_path / "tied", dtype=torch.float64)
    assert _tied(again)
    assert torch.equal(again(text(1, 5)), model(text(1, 5)))


def test_link_shares_again_what_a_move_or_an_assignment_has_parted() -> None:
    model, values = llamazoo.build_model(spec(head={"tied": True}), device="meta"), build(torch.float32, head={"tied": True}).state_dict()
    model.to_empty(device="cpu")
    model.link()
    assert _tied(model)
    model.load_state_dict({name: value.clone() for name, value in values.items()}, assign=True)
    model.link()
    assert _tied(model)


def test_a_copy_of_a_model_shares_nothing_with_it_and_its_layers_still_share_their_position() -> None:
    model, tokens = build(position="t5"), text(1, 9)
    before = model(tokens).detach()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(tokens), before)
    with torch.no_grad():
        twin.blocks[0].attention.place.position.weight.add_(torch.linspace(-3, 3, 32)[:, None])
    assert torch.equal(model(tokens), before)
    assert not torch.equal(twin(tokens), before)
    assert all(block.attention.place.position is twin.positions["at_main"] for block in twin.blocks)


# Compiling


@pytest.fixture
def _forgotten() -> Iterator[None]:
    """What was compiled before or here is not kept."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("changes", [{"n_layers": 1}, {"n_layers": 1, "attention": {"window": 3, "kernel": "eager"}}], ids=str)
def test_the_core_compiles_once_for_all_lengths_and_gives_what_it_gives_uncompiled(changes: Mapping[str, Any]) -> None:
    model, counter = build(**changes), CompileCounterWithBackend("eager")
    core = torch.compile(model.core, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for length in (9, 12, 17):
            tokens = text(2, length)
            first, again = (Step.even(2, length, start=0, horizon=length, device=tokens.device) for _ in range(2))
            close(core(tokens, first, [None]), model.core(tokens, again, [None]))
    assert counter.frame_count == 1


DECODED = [{"n_kv_heads": BASE["n_heads"]}, {}, {"attention": {"kernel": "eager"}}]


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("changes", DECODED, ids=str)
def test_decoding_compiles_once_for_the_prompt_and_once_for_all_steps(changes: Mapping[str, Any]) -> None:
    changes = {"n_layers": 1, **changes}
    model, reference, counter = build(**changes), build(**changes), CompileCounterWithBackend("eager")
    model.core = torch.compile(model.core, backend=counter, fullgraph=True, dynamic=True)
    tokens = text(2, 24)
    with torch.no_grad():
        state = model.new_state(2, 30)
        found = torch.cat([model(piece, state=state) for piece in tokens.split([5, *[1] * 19], 1)], 1)
        close(found, reference(tokens))
    assert counter.frame_count == 2


# First values


def _values(**changes: Any) -> dict[str, Tensor]:
    return dict(build(torch.float32, **changes).named_parameters())


def test_equal_seeds_give_equal_values_and_others_do_not() -> None:
    first, again, other = _values(), _values(), _values(init={"seed": 1})
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [name for name in first if torch.equal(first[name], other[name])] == [name for name in first if "norm" in name]


def test_equal_parts_start_equal_in_different_models() -> None:
    plain, other = _values(), _values(n_layers=3, norm="layernorm", position="learned", feed_forward={"type": "gated", "bias": True})
    shared = [name for name in plain if name in other]
    assert len(shared) == len(plain)
    assert all(torch.equal(plain[name], other[name]) for name in shared)


def test_no_two_parameters_start_equal() -> None:
    matrices = [p for p in _values().values() if p.ndim == 2]
    assert not any(a.shape == b.shape and torch.equal(a, b) for i, a in enumerate(matrices) for b in matrices[:i])


def test_first_values_do_not_depend_on_dtype_or_on_torchs_own_seed() -> None:
    fine = _values()
    torch.manual_seed(99)
    coarse = dict(build(torch.bfloat16).named_parameters())
    assert all(torch.equal(fine[name].bfloat16(), coarse[name]) for name in fine)


def test_a_scaled_residual_narrows_the_projections_into_the_residual_stream_only() -> None:
    layers = 8
    plain, scaled = (_values(n_layers=layers, init={"std": 0.02, "residual": kind}) for kind in ("plain", "scaled"))
    for name, value in plain.items():
        into = name.endswith(("attention.o.weight", "feed_forward.down.weight"))
        torch.testing.assert_close(scaled[name], value / (2 * layers) ** 0.5 if into else value)
    every = torch.cat([p.detach().flatten() for name, p in plain.items() if "norm" not in name])
    assert abs(float(every.std()) / 0.02 - 1) < 0.02
    assert abs(float(every.mean())) < 0.001


# Cost


def _by_hand(widths: Mapping[str, int], kv: int, hidden: int) -> int:
    dim, vocabulary, layers = widths["dim"], widths["vocab_size"], widths["n_layers"]
    attention = 2 * dim * widths["n_heads"] * widths["head_dim"] + 2 * dim * kv * widths["head_dim"]
    return layers * (attention + 3 * dim * hidden + 2 * dim) + 2 * vocabulary * dim + dim


def test_parameters_are_those_of_the_built_model_and_of_the_formula() -> None:
    found = llamazoo.describe(llamazoo.load_spec(BASE), torch.bfloat16)
    assert found.parameters == _by_hand(BASE, BASE["n_kv_heads"], BASE["hidden_dim"])
    assert found.parameters == sum(p.numel() for p in build().parameters())
    assert found.weight_bytes == 2 * found.parameters
    assert found.embedding_parameters == VOCABULARY * BASE["dim"]


@pytest.mark.parametrize(
    "changes",
    [
        {"head": {"tied": True, "bias": True}},
        {"position": "learned", "norm": "layernorm", "block": "sandwich"},
        {"n_layers": 5, "layers": [{"every": 2, "feed_forward": "mlp"}, {"at": -1, "attention": {"n_kv_heads": 4, "out_bias": True}}]},
    ],
    ids=str,
)
def test_described_parameters_and_cache_are_those_of_the_built_model(changes: dict[str, Any]) -> None:
    model = build(torch.float32, **changes)
    found = llamazoo.describe(model.spec, torch.float32)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.cache_bytes == model.new_state(1).nbytes
    assert found.cache_bytes_per_token == model.new_state(1, 21).nbytes - model.new_state(1, 20).nbytes
    assert sum(count for count, _, _ in found.layers) == model.spec.n_layers
    assert sum(count * size for count, _, size in found.layers) == sum(p.numel() for p in model.blocks.parameters())


def test_a_token_more_costs_only_the_layers_without_a_window() -> None:
    token = 2 * BASE["n_kv_heads"] * BASE["head_dim"] * 2  # keys and values, in bfloat16
    for changes, layers in (({}, 2), ({"n_layers": 5}, 5)):
        assert llamazoo.describe(llamazoo.load_spec(spec(**changes)), torch.bfloat16).cache_bytes_per_token == layers * token
    found = llamazoo.describe(llamazoo.load_spec(spec(**MIXED, max_seq_len=1024)), torch.bfloat16)
    assert found.cache_bytes_per_token == token
    assert found.cache_bytes == token * (1024 + 1 + 2 * (WINDOW + 512))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_heads": 1, "head": {"tied": True}},
        {"feed_forward": {"type": "mlp", "bias": True}, "block": "parallel", "position": "alibi"},
        {"position": "learned", "norm": "layernorm", "n_layers": 3},
    ],
    ids=str,
)
def test_described_operations_are_those_that_torch_counts(changes: dict[str, Any]) -> None:
    """The eager kernel scores every key for every query, so t tokens at once cost each what a token costs that sees t others."""
    model = build(torch.float32, **merge({"attention": {"kernel": "eager"}}, changes))
    seen = model.spec.max_seq_len // 2
    assert _counted(model, seen) == seen * llamazoo.describe(model.spec).flops_per_token
    scores = 4 * model.spec.n_layers * BASE["n_heads"] * BASE["head_dim"]  # q k^T, and the weights times v
    assert _counted(model, 5) == 5 * (llamazoo.describe(model.spec).flops_per_token - (seen - 5) * scores)


def test_a_window_lowers_the_described_operations_by_the_keys_that_it_hides() -> None:
    full, narrow = (llamazoo.describe(llamazoo.load_spec(spec(attention={"window": window}))).flops_per_token for window in (None, WINDOW))
    assert full - narrow == 4 * BASE["n_layers"] * BASE["n_heads"] * BASE["head_dim"] * (BASE["max_seq_len"] // 2 - WINDOW)


def _counted(model: llamazoo.Decoder, length: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(text(1, length))
    return counter.get_total_flops()


# Precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_half_precision_models_run_cached_and_give_logits_in_float32(dtype: torch.dtype, kernel: str) -> None:
    changes = {"attention": {"kernel": kernel, "window": 6}, "init": {"std": 0.1}}
    model, reference, tokens = build(dtype, **changes), build(torch.float32, **changes), text(2, 20)
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected, whole = reference(tokens), model(tokens)
        state = model.new_state(2, 24, chunk=4)
        pieces = torch.cat([model(piece, state=state) for piece in tokens.split([7, 1, 12], 1)], 1)
    assert whole.dtype == pieces.dtype == model.loss(tokens).dtype == torch.float32
    assert state.layers[0].keys.dtype == dtype
    tolerance = 0.05 * float(expected.abs().max())
    assert float((whole - expected).abs().max()) < tolerance
    assert float((pieces - expected).abs().max()) < tolerance


@pytest.mark.parametrize("position", ["rope", "alibi", "sinusoidal"])
def test_a_model_cast_to_half_precision_equals_one_built_in_it(position: str) -> None:
    cast, built = build(torch.float32, position=position).to(torch.bfloat16), build(torch.bfloat16, position=position)
    assert torch.equal(cast(text(1, 40)), built(text(1, 40)))
    for name, buffer in cast.named_buffers():
        assert buffer.dtype == torch.float32, name
    wide = cast.to(torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(wide.buffers(), build(position=position).buffers(), strict=True))


# Losses that cannot be


def test_targets_and_segments_that_do_not_fit_are_refused(dense: llamazoo.Decoder) -> None:
    tokens = text(2, 6)
    for targets, told in (
        (tokens[:, 1:], r"targets have the shape \[2, 5\], tokens \[2, 6\]"),
        (tokens.float(), r"targets are integer ids, found torch\.float32"),
        (tokens + VOCABULARY, "outside the vocabulary, 0 to 36, and not -100"),
        (torch.full_like(tokens, -1), "target -1 is outside the vocabulary"),
        (torch.full_like(tokens, -100), "there is nothing to predict"),
    ):
        with pytest.raises(InputError, match=told):
            dense.loss(tokens, targets)
    with pytest.raises(InputError, match=r"segments has the shape \[2, 5\], tokens \[2, 6\]"):
        dense.loss(tokens, segments=tokens[:, 1:])
    with pytest.raises(InputError, match="there is nothing to predict"):
        dense.loss(tokens, segments=torch.arange(6).expand(2, 6))


@torch.no_grad()
def test_rows_without_segments_put_over_all_packed_rows_make_the_state_plain_again(dense: llamazoo.Decoder) -> None:
    tokens = text(2, 12)
    packed = dense.new_state(2, 40, chunk=CHUNK)
    dense(tokens[:, :5], state=packed, segments=torch.tensor([[1, 1, 2, 2, 2]]).expand(2, 5))
    packed.put([0, 1], filled(dense, tokens[:, :4]))
    close(dense(tokens[:, 4:], state=packed), dense(tokens)[:, 4:])


# States of other models, and rows that are none


def test_a_state_of_another_model_is_refused_before_work(dense: llamazoo.Decoder, windowed: llamazoo.Decoder) -> None:
    tokens = text(1, 4)
    for other in (windowed, build(n_layers=3), build(n_kv_heads=1)):
        with pytest.raises(StateError, match="made by a model of another spec"):
            dense(tokens, state=other.new_state(1, 40))
    with pytest.raises(StateError, match=r"the state is for torch\.float32 on cpu, the model is torch\.float64"):
        dense(tokens, state=build(torch.float32).new_state(1, 40))
    with pytest.raises(StateError, match="the state is for"):
        dense.new_state(1, 40).put([0], build(torch.float32).new_state(1, 40))
    assert dense(tokens, state=build().new_state(1, 40)).shape == (1, 4, VOCABULARY)


def test_rows_and_lengths_are_whole_numbers(dense: llamazoo.Decoder) -> None:
    state = filled(dense, text(2, 5))
    for rows in (torch.tensor([False, True]), [0.9], [True], [[0]]):
        with pytest.raises(StateError, match="rows are given by their numbers"):
            state.select(rows)
        with pytest.raises(StateError, match="rows are given by their numbers"):
            state.clear(rows)
    for lengths in (1.5, [1, 2.0], [True, 1], None):
        with pytest.raises(StateError, match="lengths are"):
            state.rewind(lengths)
    for arguments in (("2",), (1.5,), (1, True)):
        with pytest.raises(InputError, match="is a whole number from 1"):
            dense.new_state(*arguments)


def test_a_state_beyond_all_memory_is_refused(dense: llamazoo.Decoder) -> None:
    with pytest.raises(ResourceLimitError, match=r"a state of 1000000000 rows of 64 tokens needs \d+ bytes; the memory of cpu"):
        dense.new_state(10**9)


class Horizon(llamazoo.Position):
    """Notes what it was told of the horizon."""

    name = "horizon"
    seen: list[int] = []

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> None:
        self.seen.append(horizon)


@torch.no_grad()
def test_the_horizon_is_the_capacity_in_every_call_on_a_state_and_the_longest_row_of_a_call_without() -> None:
    registry = llamazoo.default_registry().extended(Horizon)
    model = llamazoo.build_model(spec(position="horizon"), registry=registry)
    Horizon.seen.clear()
    state = model.new_state(1, 40)
    for length in (5, 1, 7):
        model(text(1, length), state=state)
    model(text(1, 3))
    model(text(2, 5), valid=torch.tensor([[True, True, False, False, False], [False, True, True, True, True]]))
    assert Horizon.seen == [40, 40, 40, 3, 4]


def test_a_tied_head_stays_tied_when_a_state_dict_is_assigned() -> None:
    model = build(head={"tied": True})
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    assert model.head.weight is model.embedding.weight


def test_what_stands_at_padding_need_not_be_a_token(dense: llamazoo.Decoder) -> None:
    tokens = text(1, 6)
    padded = torch.cat((tokens, torch.full((1, 3), -100)), 1)
    close(dense(padded, valid=padded >= 0)[:, :6], dense(tokens))


def test_models_and_specs_can_be_pickled() -> None:
    model = build()
    again = pickle.loads(pickle.dumps(model))
    assert again.spec == model.spec
    close(again(text(1, 5)), model(text(1, 5)))


@pytest.mark.parametrize(("dtype", "root"), [(torch.float64, 3072**0.5), (torch.float32, 55.4256248), (torch.bfloat16, 55.5)], ids=str)
def test_the_root_of_the_width_is_rounded_to_the_models_number_type(dtype: torch.dtype, root: float) -> None:
    model = build(torch.float32, n_layers=1, dim=3072, embedding={"scale": "sqrt_dim"}).to(dtype)
    tokens = text(2, 5)
    assert torch.equal(model.embedding(tokens), model.embedding.weight[tokens] * torch.tensor(root, dtype=dtype))
