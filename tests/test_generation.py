"""Tokens after tokens: what generation gives is what repeated full forwards would give, and text arrives as it is certain."""

import itertools
from collections.abc import Sequence
from os import PathLike
from typing import Any

import pytest
import torch
from torch import Tensor

import llamazoo
from llamazoo.errors import ContextLengthError, InputError, TokenizerError
from llamazoo.generation.sampling import Sampler, Sampling
from llamazoo.spec.patch import merge
from llamazoo.testing.kit import BASE as TINY

BASE = {**TINY, "max_seq_len": 64}

PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2], [8, 4, 6]]


def build(**changes: Any) -> llamazoo.Decoder:
    return llamazoo.build_model(merge(BASE, changes), dtype=torch.float64, device="cpu").eval()


@pytest.fixture(scope="module")
def model() -> llamazoo.Decoder:
    return build()


class Letters:
    """A tokenizer of single bytes, each id a byte; ids from 256 are none, and `eos` ends a text."""

    def __init__(self, vocab_size: int = 256, eos: tuple[int, ...] = ()) -> None:
        self.vocab_size, self.bos_id, self.eos_ids = vocab_size, None, eos

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def save(self, folder: str | PathLike[str]) -> None:
        raise NotImplementedError


class Says(llamazoo.Head):
    """A head that makes the model say the same text over and over, by looking only at the last token."""

    name = "says"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.vocab_size = site.vocab_size

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, self.vocab_size - x.shape[-1]))


def saying(text: bytes, vocab_size: int = 256) -> llamazoo.Decoder:
    """A model that, after byte 0, says `text`: an embedding that maps the i-th of distinct bytes to the next one."""
    chain = [0, *text]
    assert len(set(chain)) == len(chain), "each byte must tell which comes next"
    changes = {"vocab_size": vocab_size, "dim": 256, "n_heads": 1, "n_kv_heads": 1, "head_dim": 2, "n_layers": 1, "norm": "none"}
    registry = llamazoo.default_registry().extended(Says)
    model = llamazoo.build_model(merge(BASE, {**changes, "position": "none", "head": "says"}), registry=registry).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for now, following in itertools.pairwise(chain):
            model.embedding.weight[now, following] = 1.0
        model.embedding.weight[chain[-1], 0] = 1.0
    return model


def greedy(model: llamazoo.Decoder, prompt: Sequence[int], count: int) -> list[int]:
    """The best token, again and again, each by a full forward without a cache."""
    held = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            held.append(int(model(torch.tensor([held]))[0, -1].argmax()))
    return held[len(prompt) :]


# What it gives


def test_greedy_generation_equals_repeated_full_forwards(model: llamazoo.Decoder) -> None:
    for prompt in PROMPTS:
        made = llamazoo.generate(model, prompt, max_new_tokens=20, stop_ids=())
        assert made.tokens == [greedy(model, prompt, 20)]
        assert (made.text, made.finish_reason) == (None, "length")


def test_a_ragged_batch_equals_each_prompt_alone(model: llamazoo.Decoder) -> None:
    made = llamazoo.generate(model, PROMPTS, max_new_tokens=20, stop_ids=())
    assert made.tokens == [greedy(model, prompt, 20) for prompt in PROMPTS]
    assert made.finish_reason == ["length"] * 4


@pytest.mark.parametrize("changes", [{"position": "learned"}, {"position": "alibi"}, {"attention": {"window": 3}}], ids=str)
def test_other_positions_and_windows_generate_as_full_forwards_do(changes: dict[str, Any]) -> None:
    model = build(**changes)
    made = llamazoo.generate(model, PROMPTS, max_new_tokens=20, stop_ids=())
    assert made.tokens == [greedy(model, prompt, 20) for prompt in PROMPTS]


def test_a_window_model_generates_where_its_ring_has_long_run_on() -> None:
    model = build(max_seq_len=640, attention={"window": 3})
    prompts = [torch.randint(0, 37, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (530, 4)]
    assert model.new_state(2, 569).layers[0].is_ring
    made = llamazoo.generate(model, prompts, max_new_tokens=40, stop_ids=())
    reach = 2 * (3 - 1) + 1  # two layers with a window of 3 look back so far
    for prompt, tokens in zip(prompts, made.tokens, strict=True):
        held = [*prompt, *tokens]
        for i in (0, 1, 7, 38, 39):
            end = len(prompt) + i
            with torch.no_grad():
                logits = model(torch.tensor([held[:end]]))[0, -1]
                close_by = model(torch.tensor([held[max(end - reach, 0) : end]]))[0, -1]
            assert int(logits.argmax()) == tokens[i]
            torch.testing.assert_close(logits, close_by, rtol=1e-9, atol=1e-9)


def test_a_sampled_row_draws_what_it_draws_alone_with_its_own_seed(model: llamazoo.Decoder) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.3, "top_k": 30, "repetition_penalty": 1.2, "stop_ids": ()}
    made = llamazoo.generate(model, PROMPTS, seed=7, **settings)
    for row, prompt in enumerate(PROMPTS):
        assert made.tokens[row] == llamazoo.generate(model, prompt, seed=7 + row, **settings).tokens[0]


def test_equal_seeds_repeat_and_others_do_not(model: llamazoo.Decoder) -> None:
    first, again, other, free, freer = (
        llamazoo.generate(model, PROMPTS, max_new_tokens=20, temperature=1.0, seed=seed, stop_ids=()).tokens
        for seed in (1, 1, 1000, None, None)
    )
    assert first == again
    assert first != other
    assert free != freer


def test_rows_of_one_prompt_draw_differently(model: llamazoo.Decoder) -> None:
    first, second = llamazoo.generate(model, [PROMPTS[0]] * 2, max_new_tokens=20, temperature=1.0, seed=0, stop_ids=()).tokens
    assert first != second


def test_torchs_own_generator_is_left_alone(model: llamazoo.Decoder) -> None:
    before = torch.random.get_rng_state()
    llamazoo.generate(model, [1], max_new_tokens=3, temperature=1.0, seed=1)
    llamazoo.generate(model, [1], max_new_tokens=3, temperature=1.0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_settings_that_filter_all_but_the_best_are_greedy(model: llamazoo.Decoder) -> None:
    for settings in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 1e-6}):
        made = llamazoo.generate(model, PROMPTS[0], max_new_tokens=10, stop_ids=(), **{"temperature": 1.0, "seed": 3, **settings})
        assert made.tokens == [greedy(model, PROMPTS[0], 10)]


# Shapes of what goes in and comes out


def test_one_prompt_gives_single_answers_and_a_batch_gives_lists(model: llamazoo.Decoder) -> None:
    letters = Letters(37)
    for prompt in ([5, 6], torch.tensor([[5, 6]]), [[5, 6]], ["\x05\x06"], "\x05\x06"):
        made = llamazoo.generate(model, prompt, max_new_tokens=3, stop_ids=(), tokenizer=letters)
        single = isinstance(prompt, str) or prompt == [5, 6]
        assert made.tokens == [greedy(model, [5, 6], 3)]
        text = letters.decode(made.tokens[0])
        assert (made.text, made.finish_reason) == ((text, "length") if single else ([text], ["length"]))


def test_a_batch_of_texts_may_differ_in_length(model: llamazoo.Decoder) -> None:
    made = llamazoo.generate(model, ["\x01\x02\x03", "\x04"], max_new_tokens=4, stop_ids=(), tokenizer=Letters(37))
    assert made.tokens == [greedy(model, [1, 2, 3], 4), greedy(model, [4], 4)]


def test_timings_count_what_was_done(model: llamazoo.Decoder) -> None:
    timings = llamazoo.generate(model, PROMPTS, max_new_tokens=6, stop_ids=()).timings
    assert (timings.prompt_tokens, timings.new_tokens, timings.rows) == (sum(map(len, PROMPTS)), 24, 4)
    assert (timings.decode_steps, timings.decode_tokens) == (5, 20)
    assert timings.prefill_seconds > 0
    assert timings.decode_seconds > 0
    assert timings.tokens_per_second == 20 / timings.decode_seconds
    assert llamazoo.generate(model, [1], max_new_tokens=1).timings.tokens_per_second == 0.0


def test_the_context_may_be_filled_to_its_end_and_not_beyond(model: llamazoo.Decoder) -> None:
    assert len(llamazoo.generate(model, [1] * 60, max_new_tokens=4, stop_ids=()).tokens[0]) == 4
    with pytest.raises(ContextLengthError, match="a prompt of 60 tokens and 5 new ones need 65"):
        llamazoo.generate(model, [1] * 60, max_new_tokens=5)


@pytest.mark.parametrize("count", [0, -1, True, 2.0, "3"])
def test_max_new_tokens_is_a_positive_integer(count: Any, model: llamazoo.Decoder) -> None:
    with pytest.raises(InputError, match="max_new_tokens is at least 1"):
        llamazoo.generate(model, [1], max_new_tokens=count)


def test_faults_are_told_before_the_first_piece_is_taken(model: llamazoo.Decoder) -> None:
    with pytest.raises(InputError, match="there is no prompt"):
        llamazoo.stream(model, [], max_new_tokens=1)
    with pytest.raises(TokenizerError, match="the tokenizer has 256 ids, the model's vocabulary only 37"):
        llamazoo.stream(model, "a", max_new_tokens=1, tokenizer=Letters())
    with pytest.raises(InputError, match="stop_strings are texts that are not empty"):
        llamazoo.stream(model, [1], max_new_tokens=1, stop_strings=["a", ""], tokenizer=Letters(37))
    with pytest.raises(InputError, match="give the tokenizer too"):
        llamazoo.stream(model, [1], max_new_tokens=1, stop_strings=["a"])


# Ending


def test_a_stop_id_ends_its_row_and_is_the_last_of_its_tokens(model: llamazoo.Decoder) -> None:
    whole = [greedy(model, prompt, 20) for prompt in PROMPTS]
    stop = whole[0][6]
    made = llamazoo.generate(model, PROMPTS, max_new_tokens=20, stop_ids=[stop])
    for tokens, reason, full in zip(made.tokens, made.finish_reason, whole, strict=True):
        length = full.index(stop) + 1 if stop in full else 20
        assert (tokens, reason) == (full[:length], "stop" if stop in full else "length")
    assert "stop" in made.finish_reason
    assert made.timings.new_tokens == sum(map(len, made.tokens))


def test_the_specs_and_the_tokenizers_ends_of_text_stop_unless_told_otherwise() -> None:
    said = b"ABCDEF"
    plain, ending = saying(said), saying(said)
    ending.spec = llamazoo.load_spec({**plain.spec.canonical(), "eos_ids": [ord("D"), ord("E")]}, registry=plain.spec._registry)
    cases = [
        (plain, None, None, 9),
        (ending, None, None, 4),
        (ending, Letters(eos=(ord("C"),)), None, 3),
        (plain, Letters(eos=(ord("C"),)), None, 3),
        (ending, Letters(eos=(ord("C"),)), (), 9),
        (ending, None, (ord("F"),), 6),
        (plain, None, [ord("B")], 2),
    ]
    for model, tokenizer, stop_ids, length in cases:
        made = llamazoo.generate(model, [0], max_new_tokens=9, stop_ids=stop_ids, tokenizer=tokenizer)
        assert bytes(made.tokens[0]) == (said + b"\0AB")[:length]
        assert made.finish_reason == ("length" if length == 9 else "stop")
        if tokenizer is not None:
            assert made.text == (said + b"\0AB")[: length if length == 9 else length - 1].decode()


@pytest.mark.parametrize(
    ("stops", "text", "count"),
    [
        (["cd"], "ab", 4),
        (["d"], "abc", 4),
        (["cde"], "ab", 5),
        (["xyz", "bcd"], "a", 4),
        (["cdx"], "abcdefgh", 8),
        (["h"], "abcdefg", 8),
        (["ghi"], "abcdefgh", 8),
        (["de", "cdef"], "abc", 5),
        (["abcdefgh"], "", 8),
        ("cd", "ab", 4),
    ],
)
def test_a_stop_string_ends_the_text_before_it_wherever_tokens_part(stops: Any, text: str, count: int) -> None:
    made = llamazoo.generate(saying(b"abcdefgh"), [0], max_new_tokens=8, stop_strings=stops, tokenizer=Letters())
    assert (made.text, len(made.tokens[0])) == (text, count)
    found = any(stop in "abcdefgh" for stop in ([stops] if isinstance(stops, str) else stops))
    assert made.finish_reason == ("stop" if found else "length")


def test_text_that_may_become_a_stop_string_is_held_back_until_it_cannot() -> None:
    pieces = list(llamazoo.stream(saying(b"abcdefgh"), [0], max_new_tokens=8, stop_strings=["bcx", "fgh"], tokenizer=Letters()))
    assert [p.text for p in pieces] == ["a", "", "", "bcd", "e", "", "", ""]
    assert [p.finish_reason for p in pieces] == [None] * 7 + ["stop"]
    pieces = list(llamazoo.stream(saying(b"abcdefgh"), [0], max_new_tokens=7, stop_strings=["fgh"], tokenizer=Letters()))
    assert [p.text for p in pieces[-2:]] == ["", "fg"]
    pieces = list(
        llamazoo.stream(saying(b"abcdefgh"), [0], max_new_tokens=8, stop_strings=["fgx"], stop_ids=[ord("h")], tokenizer=Letters())
    )
    assert [p.text for p in pieces[-3:]] == ["", "", "fg"]


def test_a_character_of_several_tokens_arrives_whole_and_may_be_a_stop_string() -> None:
    said = "a\u00e9\u6f22b".encode()
    pieces = [p.text for p in llamazoo.stream(saying(said), [0], max_new_tokens=len(said), tokenizer=Letters())]
    assert pieces == ["a", "", "\u00e9", "", "", "\u6f22", "b"]
    made = llamazoo.generate(saying(said), [0], max_new_tokens=len(said), tokenizer=Letters(), stop_strings=["\u6f22"])
    assert (made.text, made.finish_reason, len(made.tokens[0])) == ("a\u00e9", "stop", 6)


def test_half_a_character_at_the_end_becomes_a_replacement_character() -> None:
    made = llamazoo.generate(saying("a\u6f22".encode()), [0], max_new_tokens=3, tokenizer=Letters())
    assert (made.text, made.finish_reason) == ("a\ufffd", "length")


def test_streamed_pieces_joined_are_what_generate_gives(model: llamazoo.Decoder) -> None:
    letters = Letters(37)
    settings: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.0, "seed": 5, "stop_ids": [7], "tokenizer": letters}
    settings["stop_strings"] = ["\x09\x0a", "\x01"]
    made = llamazoo.generate(model, PROMPTS, **settings)
    tokens: list[list[int]] = [[] for _ in PROMPTS]
    texts, reasons = [""] * 4, [None] * 4
    for piece in llamazoo.stream(model, PROMPTS, **settings):
        assert reasons[piece.row] is None, "a row that has ended says no more"
        tokens[piece.row] += [] if piece.token is None else [piece.token]
        texts[piece.row] += piece.text
        reasons[piece.row] = piece.finish_reason
    assert (tokens, texts, reasons) == (made.tokens, made.text, made.finish_reason)
    for row, text in zip(tokens, texts, strict=True):
        assert letters.decode(row).startswith(text)


# Filters


def logits_of(seed: int, vocabulary: int = 12) -> Tensor:
    return torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def left_by_hand(row: list[float], top_k: int | None, top_p: float | None, min_p: float | None) -> set[int]:
    """The tokens that remain: the k best, of these the fewest that reach p, of these those with min_p of the best."""
    left = sorted(range(len(row)), key=lambda i: -row[i])[:top_k]
    chance = dict(zip(left, torch.tensor([row[i] for i in left], dtype=torch.float64).softmax(0).tolist(), strict=True))
    if top_p is not None:
        reached, kept = 0.0, []
        for i in left:
            if reached < top_p:
                kept.append(i)
            reached += chance[i]
        left = kept
    return {i for i in left if min_p is None or chance[i] >= min_p * chance[left[0]]}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top_k", [None, 1, 4, 12])
@pytest.mark.parametrize("top_p", [None, 0.2, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("min_p", [None, 0.0, 0.1, 0.5, 1.0])
def test_filters_leave_what_a_count_by_hand_leaves(seed: int, top_k: int | None, top_p: float | None, min_p: float | None) -> None:
    logits = logits_of(seed)
    sampler = Sampler(Sampling(1.0, top_k, top_p, min_p), 3, 12, 0, torch.device("cpu"))
    filtered = sampler.filtered(logits.clone())
    for row, found in zip(logits.tolist(), filtered, strict=True):
        left = left_by_hand(row, top_k, top_p, min_p)
        assert set(found.isfinite().nonzero()[:, 0].tolist()) == left
        assert all(float(found[i]) == row[i] for i in left)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.2}], ids=str)
def test_draws_follow_the_softmax_at_each_temperature(temperature: float, filters: dict[str, Any]) -> None:
    draws = 20_000
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5], dtype=torch.float64)
    left = left_by_hand((logits / temperature).tolist(), filters.get("top_k"), filters.get("top_p"), filters.get("min_p"))
    gone = [i for i in range(5) if i not in left]
    chances = (logits / temperature).index_fill(0, torch.tensor(gone, dtype=torch.int64), float("-inf")).softmax(0)
    sampler = Sampler(Sampling(temperature, **filters), 1, 5, 11, torch.device("cpu"))
    # Rows share no generator, so one row draws for all: a generator that gives `draws` rows of noise.
    sampler.generators = sampler.generators * draws
    counts = sampler.draw(logits.expand(draws, -1)).bincount(minlength=5)
    assert counts[gone].sum() == 0
    kept = sorted(left)
    expected = chances[kept] * draws
    chi_square = float(((counts[kept] - expected).square() / expected).sum())
    assert chi_square < 18.5  # of at most four degrees of freedom: exceeded once in a thousand times, and the seed is fixed


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
def test_the_repetition_penalty_divides_positive_logits_and_multiplies_negative_ones(penalty: float) -> None:
    logits = torch.tensor([[3.0, -1.0, 2.9, 0.0, -2.0]])
    for seen in ([], [0], [1], [0, 2], [4, 1], [0, 1, 2, 3, 4]):
        by_hand = [(x / penalty if x > 0 else x * penalty) if i in seen else x for i, x in enumerate(logits[0].tolist())]
        sampler = Sampler(Sampling(repetition_penalty=penalty), 1, 5, 0, torch.device("cpu"))
        sampler.note(0, torch.tensor(seen, dtype=torch.int64))
        assert int(sampler.draw(logits)) == by_hand.index(max(by_hand))


def test_the_repetition_penalty_sees_the_prompt_and_what_was_made(model: llamazoo.Decoder) -> None:
    penalty, held = 1.5, list(PROMPTS[0])
    for _ in range(15):
        with torch.no_grad():
            logits = model(torch.tensor([held]))[0, -1].tolist()
        weakened = [(x / penalty if x > 0 else x * penalty) if i in held else x for i, x in enumerate(logits)]
        held.append(weakened.index(max(weakened)))
    made = llamazoo.generate(model, PROMPTS[:2], max_new_tokens=15, repetition_penalty=penalty, stop_ids=())
    assert made.tokens[0] == held[len(PROMPTS[0]) :]


def test_a_penalty_of_one_row_does_not_touch_another() -> None:
    sampler = Sampler(Sampling(repetition_penalty=10.0), 2, 3, 0, torch.device("cpu"))
    sampler.note(0, torch.tensor([2]))
    assert sampler.draw(torch.tensor([[0.0, 1.0, 2.0]] * 2)).tolist() == [1, 2]


def test_stop_ids_that_are_none_are_refused(tiny: llamazoo.Decoder) -> None:
    for wrong in (3, [1.5], ["a"], [True]):
        with pytest.raises(llamazoo.InputError, match="stop_ids are integer ids"):
            llamazoo.generate(tiny, [1], max_new_tokens=1, stop_ids=wrong)


def test_the_smallest_temperature_draws_the_best_token_and_top_k_keeps_k() -> None:
    from llamazoo.generation.sampling import Sampler, Sampling

    logits = torch.tensor([[1.0, 2.0, 50.0], [10.0, 200.0, 500.0]])
    for temperature in (1e-45, 1e-37, 1e-3):
        assert Sampler(Sampling(temperature), 2, 3, 0, torch.device("cpu")).draw(logits).tolist() == [2, 2]
    kept = Sampler(Sampling(1.0, top_k=1), 1, 4, 0, torch.device("cpu")).filtered(torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    assert kept.isfinite().sum() == 1
