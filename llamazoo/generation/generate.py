"""Tokens after tokens: prompts in, continuations out, whole or as they come."""

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llamazoo.decoder import Decoder
from llamazoo.errors import ContextLengthError, InputError, TokenizerError
from llamazoo.generation.decoding import Decoding
from llamazoo.generation.sampling import Sampler, Sampling
from llamazoo.generation.tokenizer import Tokenizer

__all__ = ["Generation", "Piece", "Prompt", "Timings", "generate", "stream"]

Prompt = str | Sequence[int] | Sequence[Sequence[int]] | Sequence[str] | Tensor


@dataclass
class Timings:
    """Seconds and counts of one generation. The prefill ends with the first new token."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_steps: int = 0

    @property
    def tokens_per_second(self) -> float:
        """New tokens, all rows together, per second of decoding; the first of each row belongs to the prefill."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def decode_tokens(self) -> int:
        return self.new_tokens - self.rows

    rows: int = 0


@dataclass(frozen=True)
class Piece:
    """What one step adds to one row: a token, the text that it makes certain, and at the end the reason."""

    row: int
    token: int | None  # None where only held-back text is left to tell
    text: str
    finish_reason: str | None  # "stop", "length", or None while it goes on
    timings: Timings = field(repr=False, compare=False)


@dataclass(frozen=True)
class Generation:
    """What was generated. For one prompt `text` and `finish_reason` are single; for a batch, lists with one for each row."""

    tokens: list[list[int]]  # the new ids of each row, a stop id included
    text: str | list[str] | None  # without the stop string or stop id; None without a tokenizer
    finish_reason: str | list[str]  # "stop": a stop id or stop string came; "length": max_new_tokens were made
    timings: Timings


def generate(
    model: Decoder,
    tokens: Prompt,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop_ids: Sequence[int] | None = None,
    stop_strings: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
) -> Generation:
    """Continue prompts: a string, ids, a list of either, or an int64 tensor [b t]; rows may differ in length.

    Temperature 0 is greedy. A row ends at one of `stop_ids` (by default the model's own end of text; `()` never stops), at
    one of `stop_strings`, or after `max_new_tokens`. Equal seeds give equal tokens, row by row. Raises InputError,
    ContextLengthError or SamplingError before any work.
    """
    run = _Run(
        model,
        tokens,
        max_new_tokens,
        Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
        seed,
        stop_ids,
        stop_strings,
        tokenizer,
    )
    made: list[list[int]] = [[] for _ in run.prompts]
    texts = ["" for _ in run.prompts]
    reasons = ["length" for _ in run.prompts]
    for piece in run.pieces():
        if piece.token is not None:
            made[piece.row].append(piece.token)
        texts[piece.row] += piece.text
        reasons[piece.row] = piece.finish_reason or reasons[piece.row]
    text: str | list[str] | None = None
    if tokenizer is not None:
        text = texts[0] if run.single else texts
    return Generation(made, text, reasons[0] if run.single else reasons, run.timings)


def stream(
    model: Decoder,
    tokens: Prompt,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop_ids: Sequence[int] | None = None,
    stop_strings: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
) -> Iterator[Piece]:
    """`generate`, yielding a Piece for each row and step as it comes; text that may yet become a stop string is held back."""
    run = _Run(
        model,
        tokens,
        max_new_tokens,
        Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
        seed,
        stop_ids,
        stop_strings,
        tokenizer,
    )
    return run.pieces()


class _Run:
    """One generation: everything is checked when it is made, and the work is done as `pieces` are taken."""

    def __init__(
        self,
        model: Decoder,
        tokens: Prompt,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int | None,
        stop_ids: Sequence[int] | None,
        stop_strings: Sequence[str],
        tokenizer: Tokenizer | None,
    ) -> None:
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise InputError(f"max_new_tokens is at least 1, found {max_new_tokens!r}")
        if model.device.type == "meta":
            raise InputError("the model is on the meta device and has no weights to generate with")
        if tokenizer is not None and tokenizer.vocab_size > model.spec.vocab_size:
            raise TokenizerError(f"the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary only {model.spec.vocab_size}")
        if isinstance(stop_strings, str):
            stop_strings = (stop_strings,)
        if any(not isinstance(s, str) or not s for s in stop_strings):
            raise InputError("stop_strings are texts that are not empty")
        if stop_strings and tokenizer is None:
            raise InputError("stop_strings are found in text: give the tokenizer too")
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self.single, self.prompts = _prompts(tokens, tokenizer, model.spec.vocab_size)
        longest = max(map(len, self.prompts))
        if longest + max_new_tokens > model.spec.max_seq_len:
            raise ContextLengthError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones need {longest + max_new_tokens}; "
                f"the model's context, max_seq_len, is {model.spec.max_seq_len}"
            )
        self.capacity = longest + max_new_tokens - 1  # the last new token is never looked at
        if stop_ids is None:
            stop_ids = (*model.spec.eos_ids, *(tokenizer.eos_ids if tokenizer is not None else ()))
        if not isinstance(stop_ids, Iterable) or any(isinstance(i, bool) or not isinstance(i, int) for i in stop_ids):
            raise InputError(f"stop_ids are integer ids, found {stop_ids!r}")
        self.stop_ids = frozenset(stop_ids)
        self.stop_strings = tuple(stop_strings)
        if seed is None and model.division is not None:
            seed = model.division.first(secrets.randbits(40))  # all processes have to draw the same tokens
        self.sampler = Sampler(sampling, len(self.prompts), model.spec.vocab_size, seed, model.device)
        self.timings = Timings(prompt_tokens=sum(map(len, self.prompts)), rows=len(self.prompts))

    def pieces(self) -> Iterator[Piece]:
        texts = [_Text(self.tokenizer, prompt, self.stop_strings) for prompt in self.prompts]
        running = set(range(len(self.prompts)))
        begin = time.perf_counter()
        tokens, valid = self._padded()
        for row, prompt in enumerate(self.prompts):
            self.sampler.note(row, torch.tensor(prompt, device=self.model.device))
        state = self.model.new_state(len(self.prompts), self.capacity)
        logits = self._advance(tokens, state, valid)
        for count in range(1, self.max_new_tokens + 1):
            drawn = self.sampler.draw(logits)
            ids = drawn.tolist()
            now = time.perf_counter()
            if count == 1:
                self.timings.prefill_seconds = now - begin
            else:
                self.timings.decode_seconds += now - begin
                self.timings.decode_steps += 1
            self.timings.new_tokens += len(running)
            for row in sorted(running):
                piece = self._piece(row, ids[row], count, texts[row])
                if piece.finish_reason is not None:
                    running.discard(row)
                yield piece
            if not running:
                return
            begin = time.perf_counter()
            logits = self._advance(drawn[:, None], state, None)

    def _advance(self, tokens: Tensor, state: "object", valid: Tensor | None) -> Tensor:
        return self.model.advance(tokens, state, valid, last_only=True)[:, -1]  # type: ignore[arg-type]

    def _padded(self) -> tuple[Tensor, Tensor | None]:
        """The prompts as one tensor [b t], and where it is not padding."""
        lengths = [len(prompt) for prompt in self.prompts]
        width = max(lengths)
        tokens = torch.tensor([[*p, *([0] * (width - len(p)))] for p in self.prompts], device=self.model.device)
        if min(lengths) == width:
            return tokens, None
        return tokens, torch.arange(width, device=tokens.device) < torch.tensor(lengths, device=tokens.device)[:, None]

    def _piece(self, row: int, token: int, count: int, text: "_Text") -> Piece:
        if token in self.stop_ids:
            return Piece(row, token, text.rest(), "stop", self.timings)
        last = count == self.max_new_tokens
        new, stopped = text.add(token, last)
        return Piece(row, token, new, "stop" if stopped else "length" if last else None, self.timings)


class _Text:
    """The text of one row, with whatever may yet become a stop string held back."""

    def __init__(self, tokenizer: Tokenizer | None, prompt: Sequence[int], stops: tuple[str, ...]) -> None:
        self.decoding = Decoding(tokenizer, prompt) if tokenizer is not None else None
        self.stops = stops
        self.held = ""

    def add(self, token: int, last: bool) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string has come."""
        if self.decoding is None:
            return "", False
        text = self.held + self.decoding.add(token, last=last)
        ends = [text.find(stop) for stop in self.stops if stop in text]
        if ends:
            self.held = ""
            return text[: min(ends)], True
        keep = 0 if last else max((n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def rest(self) -> str:
        """What was held back, when the row ends without a further token."""
        text, self.held = self.held, ""
        return text if self.decoding is None else text + self.decoding.rest()


def _prompts(tokens: Prompt, tokenizer: Tokenizer | None, vocab_size: int) -> tuple[bool, list[list[int]]]:
    """Whether there is one prompt, given bare, and the ids of each. Raises InputError."""
    if isinstance(tokens, Tensor):
        if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise InputError(f"a prompt tensor holds integer ids, [batch tokens]; found {tokens.dtype} {list(tokens.shape)}")
        given: list[object] = list(tokens.tolist())
        single = False
    elif isinstance(tokens, str):
        given, single = [tokens], True
    elif isinstance(tokens, Sequence):
        single = len(tokens) > 0 and not isinstance(tokens[0], str | Sequence)
        given = [tokens] if single else list(tokens)
    else:
        raise InputError(f"a prompt is a text, a list of ids, a list of either, or a tensor; found {type(tokens).__name__}")
    if not given:
        raise InputError("there is no prompt")
    prompts = [_ids(row, prompt, tokenizer) for row, prompt in enumerate(given)]
    for row, ids in enumerate(prompts):
        if not ids:
            raise InputError(f"prompt {row} is empty; it needs at least one token to continue")
        for i in ids:
            if isinstance(i, bool) or not isinstance(i, int):
                raise InputError(f"prompt {row} holds {i!r}, which is no integer id")
            if not 0 <= i < vocab_size:
                raise InputError(f"prompt {row} holds the token id {i}, outside the vocabulary, 0 to {vocab_size - 1}")
    return single, prompts


def _ids(row: int, prompt: object, tokenizer: Tokenizer | None) -> list[int]:
    if isinstance(prompt, str):
        if tokenizer is None:
            raise InputError(f"prompt {row} is a text: give the tokenizer too, or ids")
        return tokenizer.encode(prompt)
    if not isinstance(prompt, Sequence):
        raise InputError(f"prompt {row} is a {type(prompt).__name__}; expected a text or a list of ids")
    return list(prompt)
