"""A conversation with a model: turns in, answers out as they come, and no token computed twice."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import torch

from llamazoo.chat.template import ChatTemplate
from llamazoo.decoder import Decoder
from llamazoo.decoder_state import DecoderState
from llamazoo.errors import CannotRewind, ContextLengthError, InputError, TokenizerError
from llamazoo.generation.decoding import Decoding
from llamazoo.generation.sampling import Sampler, Sampling
from llamazoo.generation.tokenizer import FileTokenizer

__all__ = ["Conversation"]

ROOM = 1024  # tokens that a state begins with; it doubles as it fills


class Conversation:
    """Turns of one conversation, and the model's state after them: each turn computes only what the template adds."""

    def __init__(
        self,
        model: Decoder,
        tokenizer: FileTokenizer,
        *,
        system: str | None = None,
        template: str | ChatTemplate | None = None,
        variables: Mapping[str, Any] | None = None,
        max_new_tokens: int = 512,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        """Raises TokenizerError, TemplateError or InputError at once, not with the first turn."""
        if tokenizer.vocab_size > model.spec.vocab_size:
            raise TokenizerError(f"the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary only {model.spec.vocab_size}")
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise InputError(f"max_new_tokens is at least 1, found {max_new_tokens!r}")
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self.template = template if isinstance(template, ChatTemplate) else tokenizer.templates.find(template)
        self.variables = dict(variables or {})
        self.sampler = Sampler(sampling, 1, model.spec.vocab_size, seed, model.device)
        self.messages: list[dict[str, str]] = [] if system is None else [{"role": "system", "content": system}]
        self.begun = len(self.messages)
        self.state: DecoderState | None = None
        self.held: list[int] = []  # what the state holds
        self.computed = 0  # tokens that went through the model, all turns together
        self.stop_ids = frozenset({*model.spec.eos_ids, *tokenizer.eos_ids, *self._end_of_turn()})

    def say(self, text: str) -> Generator[str]:
        """The answer to a turn, piece by piece. Stop early and what came so far is the answer.

        Raises InputError, TemplateError or ContextLengthError before any work, and nothing has been said then.
        """
        turns = [*self.messages, {"role": "user", "content": text}]
        ids = self._ids(turns)
        room = self.model.spec.max_seq_len - len(ids)
        if room < 1:
            limit = self.model.spec.max_seq_len
            raise ContextLengthError(
                f"the conversation has {len(ids)} tokens, and the model's context, max_seq_len, {limit}; begin a new one"
            )
        return self._answer(turns, ids, min(room, self.max_new_tokens))

    def reset(self) -> None:
        """Forget all but the system's message."""
        del self.messages[self.begun :]

    def _answer(self, turns: list[dict[str, str]], ids: list[int], most: int) -> Generator[str]:
        self.messages = turns
        answer = {"role": "assistant", "content": ""}
        try:
            logits = self._read(ids, len(ids) + most)
            self.sampler.note(0, torch.tensor(ids, device=self.model.device))
            decoding = Decoding(self.tokenizer, ids)
            for count in range(1, most + 1):
                token = int(self.sampler.draw(logits))
                if token in self.stop_ids:
                    break
                piece = decoding.add(token, last=count == most)
                answer["content"] += piece
                if piece:
                    yield piece
                if count < most:
                    logits = self._advance([token])
            else:
                return
            rest = decoding.rest()
            answer["content"] += rest
            if rest:
                yield rest
        finally:
            self.messages = [*turns, answer]

    def _read(self, ids: list[int], needed: int) -> torch.Tensor:
        """Bring the state to `ids`, keeping what it holds of them; the logits after the last."""
        if self.state is None or self.state.capacity < needed:
            capacity = min(max(needed, ROOM, 2 * (0 if self.state is None else self.state.capacity)), self.model.spec.max_seq_len)
            self.state, self.held = self.model.new_state(1, capacity), []
        kept = _common(ids[:-1], self.held)  # the last one anew: its logits are not kept
        if kept < len(self.held):
            try:
                self.state.rewind(kept)
            except CannotRewind:
                self.state.clear()
                kept = 0
        self.held = self.held[:kept]
        return self._advance(ids[kept:])

    def _advance(self, ids: list[int]) -> torch.Tensor:
        assert self.state is not None
        tokens = torch.tensor([ids], device=self.model.device)
        try:
            logits = self.model.advance(tokens, self.state, last_only=True)[:, -1]
        except BaseException:  # of a call that was broken off nobody knows how far it came
            self.state, self.held = None, []
            raise
        self.held = [*self.held, *ids]
        self.computed += len(ids)
        return logits

    def _ids(self, messages: Sequence[Mapping[str, str]], *, prompt: bool = True) -> list[int]:
        return self.tokenizer.chat(messages, add_generation_prompt=prompt, template=self.template, variables=self.variables)

    def _end_of_turn(self) -> Iterator[int]:
        """The control token that the template puts after an answer; models are trained to end theirs with it."""
        question = [*self.messages, {"role": "user", "content": "a"}]
        before = self._ids(question)
        after = self._ids([*question, {"role": "assistant", "content": "b"}], prompt=False)
        if after[: len(before)] == before:
            controls = set(self.tokenizer.controls.values())
            yield from [i for i in after[len(before) :] if i in controls][:1]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
