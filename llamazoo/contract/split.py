"""How a component's parameters may be divided among processes: declared here, carried out by llamazoo.parallel.

A component that declares nothing is replicated, and still right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Column", "Row", "Split"]


@dataclass(frozen=True)
class Column:
    """Cut along the output: each process computes a share of the features. Shoeybi et al. 2019 (Megatron-LM), section 3.

    `units` is the width that must stay together (a head); several `sizes` with their units describe a fused projection.
    """

    units: int | Sequence[int | None] = 1
    sizes: Sequence[int] | None = None
    dim: int = 0


@dataclass(frozen=True)
class Row:
    """Cut along the input: each process adds its share of the sum. `unit` is the width that must stay together."""

    unit: int = 1
    dim: int = 1


Split = Column | Row
