"""A checkpoint on disk, and the formats that know how to read and write one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from llamazoo.contract.options import ComponentOptions
from llamazoo.discovery import told
from llamazoo.errors import PluginError, SaveError, UnsupportedError, WeightsError
from llamazoo.registry import Registry
from llamazoo.shelf import Offer
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.problems import explain
from llamazoo.weights.rotary import Layout, Turns
from llamazoo.weights.rule import Rule
from llamazoo.weights.store import Store

if TYPE_CHECKING:
    from llamazoo.decoder import Decoder
    from llamazoo.generation.tokenizer import Tokenizer

__all__ = ["Checkpoint", "Format", "format_of", "open_checkpoint", "options_of", "recognising", "write_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """What stands in a folder: the architecture, the tensors, and the format that knows how theirs become ours."""

    folder: Path
    spec: ArchitectureSpec
    store: Store
    format: "type[Format]"

    def rules(self, spec: ArchitectureSpec) -> Sequence[Rule]:
        """The rules that make these tensors those of a model of `spec`, which need not be the checkpoint's own."""
        return self.format.table(spec, self.spec)

    def turns(self, spec: ArchitectureSpec) -> Turns:
        """The rows of the tensors of a model of `spec` that stand otherwise here."""
        return Turns(spec, self.spec, self.format.layout(self.spec))


class Format:
    """A way to store models. A plugin offers its own through the hook `llamazoo_formats`."""

    name: ClassVar[str]
    looks_for: ClassVar[str]  # what marks it, in words, for errors

    class Options(ComponentOptions):
        """What a user may choose of how a model is written; as strict as the options of a component."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the folder, or file, is in this format; looks at names only."""
        raise NotImplementedError

    @classmethod
    def read(cls, path: Path, registry: Registry) -> Checkpoint:
        """Read everything but the tensors' values. Raises WeightsError."""
        raise NotImplementedError

    @classmethod
    def rules(cls, spec: ArchitectureSpec, stored: ArchitectureSpec) -> Sequence[Rule]:
        """The rules between the tensors that this format keeps for the spec `stored` and those of a model of `spec`.

        They differ where the file's architecture is an ablation's parent.
        """
        raise NotImplementedError

    @classmethod
    def layout(cls, stored: ArchitectureSpec) -> Layout | None:
        """In which layout the tensors of `stored` have their rotary pairs in this format; None: as that spec says."""
        return None

    @classmethod
    def table(cls, spec: ArchitectureSpec, stored: ArchitectureSpec) -> Sequence[Rule]:
        """All rules: the format's own, then those that plugins add for their parts."""
        return [*cls.rules(spec, stored), *spec.registry.rules(cls.name, spec)]

    @classmethod
    def write(cls, model: "Decoder", folder: Path, options: Any) -> None:
        """Write a model into an empty folder, as `options`, this format's own, ask.

        Raises WeightsError naming the part that the format cannot express.
        """
        raise UnsupportedError(f"the format {cls.name!r} can be read, not written")

    @classmethod
    def write_with_tokenizer(cls, model: "Decoder", folder: Path, options: Any, tokenizer: "Tokenizer") -> None:
        """Write a model and its tokenizer: here as files beside the weights. A format that keeps it within them overrides this."""
        cls.write(model, folder, options)
        tokenizer.save(folder)

    @classmethod
    def tokenizer(cls, path: Path) -> "Tokenizer | None":
        """The tokenizer that the checkpoint itself carries, if it does so in a way of its own; None: it lies in the folder as files."""
        return None


def open_checkpoint(path: Path, registry: Registry) -> Checkpoint:
    """The checkpoint at a path, in whichever format it is. Raises WeightsError."""
    return format_of(path, registry).read(path, registry)


def format_of(path: Path, registry: Registry) -> type[Format]:
    """The one format that recognises what lies at a path."""
    if not path.exists():
        raise WeightsError(f"{path}: there is no such file or folder")
    found = recognising(path, registry)
    if len(found) == 1:
        return found[0].value
    if found:
        names = " or ".join(offer.qualified(offer.name) for offer in found)
        raise WeightsError(f"{path}: could be of the formats {names}; keep the files of one")
    known = "; ".join(f"{form.name}: {form.looks_for}" for form in registry.formats())
    raise WeightsError("\n  ".join([f"{path}: is no checkpoint of a known format ({known})", *registry.unloaded()]))


def recognising(path: Path, registry: Registry) -> "list[Offer[type[Format]]]":
    """The formats that recognise what lies at a path; what llamazoo itself reads is not left to plugins."""
    offers = registry.format_offers()
    own = [offer for offer in offers if offer.is_own and offer.value.recognises(path)]
    return own or [offer for offer in offers if not offer.is_own and _recognises(offer, path)]


def _recognises(offer: "Offer[type[Format]]", path: Path) -> bool:
    try:
        return bool(offer.value.recognises(path))
    except Exception as error:
        where = f"{offer.distribution} {offer.version}: the format {offer.name!r}"
        raise PluginError(f"{where} failed while it looked at {path}: {told(error)}") from error


def options_of(form: type[Format], given: Mapping[str, Any] | None) -> Any:
    """The options of a format, from what a user chose. SaveError names each that it has not, or that cannot have this value."""
    if given is not None and not isinstance(given, Mapping):
        raise SaveError(f"the options of a format are a map from names to values, found {given!r}")
    try:
        return form.Options.model_validate(dict(given or {}))
    except ValidationError as error:
        raise SaveError(f"the format {form.name!r}: {explain(error, form.Options)}") from None


def write_checkpoint(form: type[Format], model: "Decoder", folder: Path, options: Any, tokenizer: "Tokenizer | None") -> None:
    """Let a format write a model into an empty folder, and its tokenizer if it has one."""
    if tokenizer is None:
        form.write(model, folder, options)
    else:
        form.write_with_tokenizer(model, folder, options, tokenizer)
