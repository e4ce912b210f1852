"""Our own format: llamazoo.yaml, the spec in full, beside safetensors under the model's own names. It holds any model."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from llamazoo.contract.options import ComponentOptions
from llamazoo.decoder import Decoder
from llamazoo.errors import SpecError, WeightsError
from llamazoo.registry import Registry
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import SPEC_FILE, load_spec
from llamazoo.weights.checkpoint import Checkpoint, Format
from llamazoo.weights.files import plain_file
from llamazoo.weights.rule import Rename, Rule
from llamazoo.weights.save import outgoing
from llamazoo.weights.store import SafetensorsStore, write_sharded

__all__ = ["Native"]


class Native(Format):
    """llamazoo.yaml and model.safetensors."""

    name = "native"
    looks_for = f"a folder with {SPEC_FILE}"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and (path / SPEC_FILE).exists()

    @classmethod
    def read(cls, path: Path, registry: Registry) -> Checkpoint:
        try:
            spec = load_spec(plain_file(path, SPEC_FILE), registry=registry)
        except SpecError as error:
            raise WeightsError(str(error)) from error
        return Checkpoint(path, spec, SafetensorsStore.in_folder(path), cls)

    @classmethod
    def rules(cls, spec: ArchitectureSpec, stored: ArchitectureSpec) -> Sequence[Rule]:
        return [Rename("**", "**")]

    @classmethod
    def write(cls, model: Decoder, folder: Path, options: ComponentOptions) -> None:
        data = {**model.spec.canonical(), "dtype": str(model.dtype).removeprefix("torch.")}
        (folder / SPEC_FILE).write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
        write_sharded(folder, outgoing(model, cls))
