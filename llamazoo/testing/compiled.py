"""The check that a component compiles."""

from collections.abc import Iterator

import torch

from llamazoo.testing.check import Finding, check, compare
from llamazoo.testing.tiny import Subject, at_once

__all__ = ["compiled"]

# Either finds what cannot be traced. The second also takes writes apart as a real backend would, and takes three times as long
# for a whole forward; in a step, which writes to the state, it costs little.
FORWARD, STEP = "eager", "aot_eager"


@check("Python that looks at the values of a tensor (if, .item(), .tolist()), or a call that the compiler does not know")
def compiled(of: Subject) -> Iterator[Finding]:
    """Compiled whole (fullgraph=True), once for all lengths, the layers give what they give uncompiled, as do steps on a state."""
    yield from _compiled(of.one_layer(), FORWARD, STEP)


def _compiled(of: Subject, forward: str, step: str) -> Iterator[Finding]:
    torch.compiler.reset()  # else graphs of other models count against the limit
    try:
        model, plain = of.model(), of.model()
        model.core = torch.compile(plain.core, backend=forward, fullgraph=True, dynamic=True)  # type: ignore[method-assign]
        for length in (12, 17):
            done = f"compiled the layers ({forward}), and called them with {length} tokens"
            yield from compare(done, model(of.tokens(2, length)), plain(of.tokens(2, length)), "what they give uncompiled")
        tokens = of.tokens(2, 9)
        expected, state = at_once(plain, tokens, 20), plain.new_state(2, 20, chunk=8)
        plain(tokens[:, :6], state=state)
        model.core = torch.compile(plain.core, backend=step, fullgraph=True)  # type: ignore[method-assign]
        for i in range(6, 9):
            done = f"compiled a step on a state of {i} tokens ({step})"
            yield from compare(done, model(tokens[:, i : i + 1], state=state), expected[:, i : i + 1], "what one call gives uncompiled")
    finally:
        torch.compiler.reset()
