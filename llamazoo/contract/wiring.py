"""How a block wires its parts, as data: what a drawing shows in place of the code.

b batch, t tokens, d model width.
"""

from dataclasses import dataclass

__all__ = ["Residual", "Wiring"]


@dataclass(frozen=True)
class Residual:
    """x + scale * (branch(x) + ...): each branch sends the stream through some parts in turn, and all are added to it.

    Parts are named by the attributes that hold them. `shared` are those that the stream passes before the branches part.

    Residual(("attention_norm", "attention"))                                               x + attention(norm(x))
    Residual(("attention",), ("feed_forward",), shared=("norm",))     n = norm(x): x + attention(n) + feed_forward(n)
    """

    branches: tuple[tuple[str, ...], ...]
    shared: tuple[str, ...] = ()
    scale: float = 1.0

    def __init__(self, *branches: tuple[str, ...], shared: tuple[str, ...] = (), scale: float = 1.0) -> None:
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "shared", shared)
        object.__setattr__(self, "scale", scale)

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts of all branches, in the order in which they are passed."""
        return (*self.shared, *(name for branch in self.branches for name in branch))


Wiring = tuple[Residual | str, ...]
"""What the stream meets in turn: something that is added to it, or a part that it passes through."""
