"""A checkpoint on disk, and the formats that know how to read and write one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llamazoo.errors import UnsupportedError, WeightsError
from llamazoo.registry import Registry
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.rule import Rule
from llamazoo.weights.store import Store

if TYPE_CHECKING:
    from llamazoo.decoder import Decoder

__all__ = ["Checkpoint", "Format", "open_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """What stands in a folder: the architecture, the tensors, and the rules that make theirs ours."""

    folder: Path
    spec: ArchitectureSpec
    store: Store
    rules: Sequence[Rule]


class Format:
    """A way to store models. A plugin offers its own through the hook `llamazoo_formats`."""

    name: ClassVar[str]
    looks_for: ClassVar[str]  # what marks it, in words, for errors

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the folder, or file, is in this format; looks at names only."""
        raise NotImplementedError

    @classmethod
    def read(cls, path: Path, registry: Registry) -> Checkpoint:
        """Read everything but the tensors' values. Raises WeightsError."""
        raise NotImplementedError

    @classmethod
    def rules(cls, spec: ArchitectureSpec) -> Sequence[Rule]:
        """The rules between this format's tensors and those of a model of this spec."""
        raise NotImplementedError

    @classmethod
    def write(cls, model: "Decoder", folder: Path) -> None:
        """Write a model into an empty folder. Raises WeightsError naming the part that the format cannot express."""
        raise UnsupportedError(f"the format {cls.name!r} can be read, not written")

    @classmethod
    def tokenizer(cls, path: Path) -> Any | None:
        """The tokenizer that the checkpoint itself carries, if it does so in a way of its own; None: it lies in the folder as files."""
        return None


def open_checkpoint(path: Path, registry: Registry) -> Checkpoint:
    """The checkpoint at a path, in whichever format it is. Raises WeightsError."""
    return format_of(path, registry).read(path, registry)


def format_of(path: Path, registry: Registry) -> type[Format]:
    """The one format that recognises what lies at a path."""
    if not path.exists():
        raise WeightsError(f"{path}: there is no such folder")
    formats = registry.formats()
    found = [form for form in formats.values() if form.recognises(path)]
    if len(found) == 1:
        return found[0]
    if not found:
        known = "; ".join(f"{form.name}: {form.looks_for}" for form in formats.values())
        raise WeightsError(f"{path}: is no checkpoint of a known format ({known})")
    raise WeightsError(f"{path}: could be of the formats {' or '.join(form.name for form in found)}; keep the files of one")
