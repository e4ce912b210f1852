"""Checks of what one text gives: cut into calls, padded, in a batch, packed with others, with another continuation.

b batch, t tokens.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from llamazoo.decoder import Decoder
from llamazoo.testing.check import Finding, check, compare
from llamazoo.testing.tiny import TOKENS, Subject, at_once, padded

__all__ = ["batch", "cached", "causality", "padding", "segments"]

ROWS = ((0, 9), (0, 4), (0, 1), (0, 12))  # where rows of different lengths begin and end in a text
CAPACITY = 48  # of the state on which they do
MORE = ((15, 20), (18, 20), (13, 20), (17, 20))  # and what continues them


@check("a token sees a later one: a shift or a mean along the tokens, or a mask that is forgotten or off by one")
def causality(of: Subject) -> Iterator[Finding]:
    """What comes later changes nothing that came before."""
    model, tokens = of.model(), of.tokens()
    before = model(tokens)
    for cut in (1, TOKENS // 2, TOKENS - 1):
        other = tokens.clone()
        other[:, cut:] = (other[:, cut:] + 1) % of.spec.vocab_size
        done = f"changed all tokens after the first {cut}"
        yield from compare(done, model(other)[:, :cut], before[:, :cut], "the logits of those before as they were")


@check(
    "what a call writes to its state, or which of what is there it looks at: a mask, a slot, a position off by one; or something that "
    "follows from how long the call is, where it may follow from the horizon"
)
def cached(of: Subject) -> Iterator[Finding]:
    """Any way to cut a text into calls on a state gives what one call gives."""
    model, tokens = of.model(), of.tokens()
    # Without a state the horizon is the text's own length, on one its capacity: each is compared within its own.
    whole = {TOKENS: model(tokens), TOKENS + 3: at_once(model, tokens, TOKENS + 3)}
    for name, cuts, chunk, capacity in (
        ("one call", (TOKENS,), 3, TOKENS),
        ("single tokens", (1,) * TOKENS, 64, TOKENS + 3),
        ("a prefill, steps and chunks", (5, 1, 1, 7, 1, 9), 3, TOKENS),
        ("a prefill, steps and chunks", (5, 1, 1, 7, 1, 9), 3, TOKENS + 3),
        ("a prefill, steps and chunks", (5, 1, 1, 7, 1, 9), 64, TOKENS),
        ("a token and two chunks", (1, 11, 12), 5, TOKENS + 3),
    ):
        state = model.new_state(len(tokens), capacity, chunk=chunk)
        pieces = [model(piece, state=state) for piece in tokens.split(list(cuts), 1)]
        done = f"called on a state of capacity {capacity} and chunk {chunk} with the text as {name} ({', '.join(map(str, cuts[:6]))})"
        once = "one call without a state" if capacity == TOKENS else "one call on such a state"
        yield from compare(done, torch.cat(pieces, 1), whole[capacity], f"what {once} gives")


@check("tokens of one row reach another: a mean or maximum over the batch, or a view that mixes rows with tokens or heads")
def batch(of: Subject) -> Iterator[Finding]:
    """A row gives the same whatever rows stand beside it, and in whatever order."""
    model, tokens = of.model(), of.tokens(4, 11)
    together = model(tokens)
    alone = torch.cat([model(row) for row in tokens.split(1)])
    yield from compare("called with each row of a batch alone", alone, together, "what it gives in the batch")
    order = torch.tensor([2, 0, 3, 1])
    yield from compare("called with the rows in another order", model(tokens[order]), together[order], "the same in that order")
    together = _on_a_state(model, tokens)
    alone = torch.cat([_on_a_state(model, row) for row in tokens.split(1)])
    yield from compare("called with each row alone, on a state", alone, together, "what it gives in the batch")


def _on_a_state(model: Decoder, tokens: Tensor) -> Tensor:
    state = model.new_state(len(tokens), 16, chunk=4)
    return torch.cat([model(piece, state=state) for piece in tokens.split([6, 1, 4], 1)], 1)


@check("padding is taken for a token: `step.valid` is not asked before a state is altered, or an average taken")
def padding(of: Subject) -> Iterator[Finding]:
    """Rows of different lengths, padded anywhere, give what each row gives alone: in one call, and as calls on a state."""
    model = of.model()
    rows, more = ([of.tokens(1, 20)[0, begin:end] for begin, end in ends] for ends in (ROWS, MORE))
    longest = max(map(len, rows))  # which is the horizon of one call with all of them
    alone = [at_once(model, row[None], longest) for row in rows]
    texts = [torch.cat((row, new[:1], new, new[:1])) for row, new in zip(rows, more, strict=True)]
    whole = [at_once(model, text[None], CAPACITY)[0] for text in texts]
    # What is expected after the step, the padded chunk and the step of `_continued`.
    ends = [[len(row), len(row) + len(new), len(row) + len(new) + 1] for row, new in zip(rows, more, strict=True)]
    expected = torch.stack([text[at] for text, at in zip(whole, ends, strict=True)], 1)
    for side in ("right", "left", "both sides"):
        tokens, valid = padded(rows, side)
        logits = model(tokens, valid=valid)
        for i, own in enumerate(alone):
            done = f"padded a row of {len(rows[i])} tokens on the {side}"
            yield from compare(done, logits[i : i + 1][:, valid[i]], own, "what it gives alone")
        last = model(tokens, valid=valid, last_only=True)
        lasts = torch.cat([logits[:, -1:] for logits in alone])
        yield from compare(f"asked for last_only, padded on the {side}", last, lasts, "each row's last logits")
        yield from _continued(model, (tokens, valid), more, side, expected)


def _continued(model: Decoder, first: tuple[Tensor, Tensor], more: Sequence[Tensor], side: str, expected: Tensor) -> Iterator[Finding]:
    """A padded prefill, then a step, then a padded chunk, then a step; `expected` are the last logits of each [3 b v]."""
    state = model.new_state(len(more), CAPACITY, chunk=5)
    model(first[0], state=state, valid=first[1])
    step = torch.stack([row[:1] for row in more])
    for (new, valid), logits in zip(((step, None), padded(more, side), (step, None)), expected, strict=True):
        found = model(new, state=state, valid=valid, last_only=True)
        done = f"called on a state with {'a step' if valid is None else 'a padded chunk'} after a prefill padded on the {side}"
        yield from compare(done, found, logits[:, None], "what each row gives alone")


@check("documents see each other: a mask or a recurrence that does not ask `step.begin`, or positions that run on")
def segments(of: Subject) -> Iterator[Finding]:
    """Documents packed into one row give what each gives alone, whatever their numbers, and across calls."""
    model, lengths = of.model(), (6, 1, 9, 8)
    documents = of.tokens(1).split(list(lengths), 1)
    expected = torch.cat([at_once(model, document, TOKENS) for document in documents], 1)
    ids = torch.cat([torch.full((1, n), number) for n, number in zip(lengths, (4, 0, 4, 7), strict=True)], 1)
    packed = torch.cat(documents, 1)
    yield from compare("packed four documents into a row", model(packed, segments=ids), expected, "what each gives alone")
    state = model.new_state(1, TOKENS, chunk=4)
    cuts = [3, 2, 5, 1, 13]
    pieces = [model(t, state=state, segments=s) for t, s in zip(packed.split(cuts, 1), ids.split(cuts, 1), strict=True)]
    yield from compare("packed them, in calls that cut documents", torch.cat(pieces, 1), expected, "what each gives alone")
    yield from _packed_and_padded(model, of)


def _packed_and_padded(model: Decoder, of: Subject) -> Iterator[Finding]:
    """Rows of different lengths that each hold two documents, on a state."""
    rows, cuts = [of.tokens(1, 11, seed=1)[0], of.tokens(1, 7, seed=2)[0]], (4, 5)
    expected = [
        torch.cat([at_once(model, part[None], TOKENS)[0] for part in row.tensor_split([cut])]) for row, cut in zip(rows, cuts, strict=True)
    ]
    tokens, valid = padded(rows, "left")
    ids = torch.zeros_like(tokens)
    for i, cut in enumerate(cuts):
        ids[i, valid[i].nonzero()[cut:, 0]] = 1
    state = model.new_state(2, TOKENS, chunk=3)
    logits = model(tokens, valid=valid, segments=ids, state=state)
    for i, both in enumerate(expected):
        done = f"packed two documents into a row of {len(rows[i])} tokens, padded on the left, on a state"
        yield from compare(done, logits[i][valid[i]][None], both[None], "what each gives alone")
