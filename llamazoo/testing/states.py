"""Checks of what can be done to the rows of a state."""

from collections.abc import Iterator

import torch
from torch import Tensor

from llamazoo.decoder_state import DecoderState
from llamazoo.errors import CannotRewind
from llamazoo.testing.check import Finding, check, compare
from llamazoo.testing.tiny import TOKENS, Subject, at_once, padded

__all__ = ["rewind", "state_rows"]


@check("a tensor of the state that select(), clear(), put() or clone() leaves out")
def state_rows(of: Subject) -> Iterator[Finding]:
    """Rows of a state can be selected, cleared, put and copied, and nothing else follows."""
    model, tokens = of.model(), of.tokens(3)
    first, rest = tokens[:, :10], tokens[:, 10:]
    capacity = TOKENS + 1
    whole = at_once(model, tokens, capacity)[:, 10:]

    def filled(rows: Tensor) -> DecoderState:
        state = model.new_state(len(rows), capacity, chunk=4)
        model(rows, state=state)
        return state

    state = filled(first)
    twin = state.clone()
    logits = [model(rest[:, :3], state=twin)]
    model(rest.flip(0), state=state)  # writes where the clone has just written
    logits.append(model(rest[:, 3:], state=twin))
    done, cause = "cloned a state, and let the original go on while the clone did", "clone() shares a tensor, or loses one"
    yield from compare(done, torch.cat(logits, 1), whole, "the original's own continuation", cause=cause)
    state = filled(first)
    state.select([2, 0, 0])
    done, cause = "selected the rows 2, 0, 0", "select() leaves a tensor of the state as it was"
    yield from compare(done, model(rest[[2, 0, 0]], state=state), whole[[2, 0, 0]], "those rows' continuation", cause=cause)
    for rows in ([1], [0, 2, 1, 1, 0]):
        state = filled(first)
        state.select(rows)
        done, cause = f"selected the rows {', '.join(map(str, rows))} of three", "select() expects as many rows as there were"
        yield from compare(done, model(rest[rows], state=state), whole[rows], "those rows' continuation", cause=cause)
    state = filled(first)
    state.clear([1])
    fresh, logits = at_once(model, tokens[:1, 10:], capacity), model(rest[[0, 0, 2]], state=state)
    cause = "clear() leaves a tensor of the state as it was, or clears other rows too"
    yield from compare("cleared row 1", logits[1:2], fresh, "what a new row gives", cause=cause)
    yield from compare("cleared row 1", logits[[0, 2]], whole[[0, 2]], "rows 0 and 2 as they were", cause=cause)
    state = filled(first)
    state.put([1], filled(first[2:]))
    done, cause = "put row 2 of a state into row 1 of another", "put() leaves a tensor of the state as it was, or writes other rows too"
    yield from compare(done, model(rest[[0, 2, 2]], state=state), whole[[0, 2, 2]], "that row's continuation", cause=cause)


@check("rewind() changes what it must keep, or refuses_rewind() does not say what has been forgotten")
def rewind(of: Subject) -> Iterator[Finding]:
    """A row can always go back to nothing; further back than it remembers is refused, with nothing changed."""
    model, tokens = of.model(), of.tokens(3)
    capacity = TOKENS + 8
    whole, fresh = at_once(model, tokens, capacity), at_once(model, tokens[:, 10:], capacity)
    for lengths in ([10, 10, 0], [10, 7, 0], [9, 9, 9], [2, 10, 5]):
        state = model.new_state(3, capacity, chunk=4)
        model(tokens[:, :10], state=state)
        asked = lengths
        try:
            state.rewind(lengths)
        except CannotRewind as refusal:
            if lengths == [10, 10, 0]:
                cause = "refuses_rewind() refuses rows that keep their length, or that go back to nothing"
                done = "rewound one row of three to 0 tokens"
                yield Finding(done, "no refusal, since it forgets everything", f"CannotRewind: {refusal}", cause)
            lengths = [10, 10, 10]
        rest = [tokens[row, length:] if length else tokens[row, 10:] for row, length in enumerate(lengths)]
        more, valid = padded(rest, "right")
        logits = model(more, state=state, valid=valid)
        for row, length in enumerate(lengths):
            expected = whole[row : row + 1, length:] if length else fresh[row : row + 1]
            done = f"rewound rows of 10 tokens to {asked}{'' if asked == lengths else ', which was refused,'} and went on with row {row}"
            yield from compare(done, logits[row][valid[row]][None], expected, "what one call gives")
