"""What the model types before Llama share: one projection for queries, keys and values, and a prefix that some files leave out."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.family import Family, qkv_rows, renames
from llamazoo.weights.rule import Drop, Rule, SplitGroups

__all__ = ["OURS", "Fused"]

OURS = "blocks.*"


class Fused(Family):
    """Names are written as transformers writes them, with the prefix, and read either way: files of the bare model have none."""

    prefix: ClassVar[str] = "transformer."
    qkv: ClassVar[str]  # their one projection to queries, keys and values
    strays: ClassVar[Mapping[str, str]] = {}  # tensors that stand in files and are computed, by what from
    heads: ClassVar[tuple[str, ...]] = ("lm_head",)  # what they have called the head, the name to be written first

    @abstractmethod
    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        """Their modules by ours, all but the head and what `fused` cuts; without the prefix."""

    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        found: list[Rule] = []
        for prefix in (self.prefix, ""):
            found += [Drop(f"{prefix}{name}", f"computed from {source}") for name, source in self.strays.items()]
            found += self.fused(prefix, spec)
            found += renames({ours: f"{prefix}{theirs}" for ours, theirs in self.modules(spec).items()})
        return found + [rule for name in self.heads for rule in renames({"head": name})]

    def fused(self, prefix: str, spec: ArchitectureSpec) -> list[Rule]:
        """The projection cut: here each key/value head stands behind the heads of queries that it serves."""
        q, k, _ = qkv_rows(spec)
        e = spec.site().head_dim
        groups = k // e
        return [
            SplitGroups(f"{prefix}{self.qkv}.{leaf}", tuple(f"{OURS}.attention.{n}.{leaf}" for n in "qkv"), (q // groups, e, e), groups)
            for leaf in ("weight", "bias")
        ]
