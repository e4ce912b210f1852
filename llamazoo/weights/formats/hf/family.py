"""A family: what one Hugging Face model type calls things, in config.json and in its tensors, to and from ours."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from llamazoo.contract.component import LayerSpec, Part
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config
from llamazoo.weights.rotary import Layout
from llamazoo.weights.rule import Rename, Rule

__all__ = ["Family", "layers_of", "option", "qkv_rows", "renames"]


class Family(ABC):
    """One model type. What is read from a config that it wrote is the spec again; whoever exports compares the two."""

    model_type: ClassVar[str]
    architecture: ClassVar[str]  # the class of transformers that has a head for language modelling
    layout: ClassVar[Layout] = "half"  # how rotary pairs stand in its checkpoints

    @abstractmethod
    def spec(self, config: Config) -> dict[str, Any]:
        """A spec's data, all but dtype and special tokens; WeightsError naming a field that cannot be had."""

    @abstractmethod
    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        """The fields nearest to a spec, which may be any spec."""

    @abstractmethod
    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        """From the names of a checkpoint of this type to those of a model of `spec`."""


def option(part: Part | None, name: str, default: Any = None) -> Any:
    """An option of a part, which may be of a type that has no such option."""
    value = getattr(part.options, name, None) if part is not None else None
    return default if value is None else value


def layers_of(spec: ArchitectureSpec) -> list[LayerSpec]:
    """What each layer is made of, one by one."""
    return [spec.layer(number) for number in range(spec.n_layers)]


def qkv_rows(spec: ArchitectureSpec) -> tuple[int, int, int]:
    """How many rows of a fused projection are for queries, keys and values."""
    site = spec.site()
    kv = option(spec.attention, "n_kv_heads", site.n_kv_heads) * site.head_dim
    return site.n_heads * site.head_dim, kv, kv


def renames(modules: Mapping[str, str]) -> list[Rule]:
    """Rules for whole modules, theirs by ours, whatever tensors they hold."""
    return [Rename(f"{theirs}.*", f"{ours}.*") for ours, theirs in modules.items()]
