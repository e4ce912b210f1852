"""llamazoo: decoder language models from parts that anybody can add.

The public names are resolved on first use, so that importing the package, or its command line, does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamazoo.build import build_model, load_model, save_model
    from llamazoo.chat.template import ChatTemplate
    from llamazoo.contract.component import Component, LayerSpec, Part, Site, as_wide_as_float32, at_least_float32, parameter, refuse
    from llamazoo.contract.draw import Draw, Init
    from llamazoo.contract.grouped import grouped_ends, grouped_linear
    from llamazoo.contract.kernel import Kernel, Visible
    from llamazoo.contract.kinds import (
        Activation,
        Attention,
        Block,
        Embedding,
        FeedForward,
        Head,
        Norm,
        Place,
        Position,
        RotaryRows,
        Router,
        Routing,
    )
    from llamazoo.contract.options import ComponentOptions, Fraction, NonNegative, Positive, Size
    from llamazoo.contract.spare import Spare
    from llamazoo.contract.split import Column, Row, Share
    from llamazoo.contract.state import KeyValueState, State, TokenState
    from llamazoo.contract.step import Losses, Step
    from llamazoo.contract.wiring import Residual, Wiring
    from llamazoo.cost import Description, describe
    from llamazoo.data.config import open_data
    from llamazoo.data.example import DataSet, Example, Examples
    from llamazoo.decoder import Decoder
    from llamazoo.decoder_state import DecoderState
    from llamazoo.diagram.depict import depict
    from llamazoo.errors import (
        CannotRewind,
        ConformanceError,
        ContextLengthError,
        DataError,
        DivergedError,
        DuplicateComponentError,
        InputError,
        KernelError,
        LlamazooError,
        NonFiniteError,
        PathEscapeError,
        PluginError,
        PluginVersionWarning,
        ResourceLimitError,
        SamplingError,
        SaveError,
        SpecError,
        StateError,
        TemplateError,
        TokenizerError,
        TrainingError,
        UnknownComponentError,
        UnsupportedError,
        WeightsError,
    )
    from llamazoo.generation.conversation import Conversation
    from llamazoo.generation.generate import Generation, Piece, generate, stream
    from llamazoo.generation.ranks import RankTokenizer
    from llamazoo.generation.tokenizer import FileTokenizer, Tokenizer, load_tokenizer
    from llamazoo.hooks import hookimpl
    from llamazoo.load_balance import ExpertLoad, correct_load, expert_load
    from llamazoo.parallel.tensor import divide
    from llamazoo.registry import Registry, default_registry, register
    from llamazoo.spec.architecture import ArchitectureSpec
    from llamazoo.spec.compose import load_spec, zoo_names
    from llamazoo.spec.differences import Difference, differences
    from llamazoo.spec.part import (
        ActivationPart,
        AttentionPart,
        BlockPart,
        EmbeddingPart,
        FeedForwardPart,
        HeadPart,
        KernelPart,
        NormPart,
        PositionPart,
        RouterPart,
        part,
    )
    from llamazoo.training.evaluate import Score, evaluate
    from llamazoo.training.loop import Trained, train
    from llamazoo.training.recipe import Recipe
    from llamazoo.training.watch import Point, Watcher
    from llamazoo.weights.checkpoint import Checkpoint, Format
    from llamazoo.weights.load import LoadReport
    from llamazoo.weights.rule import Drop, Fuse, Interleave, Rename, Rule, Split, SplitGroups, SplitTransposed, Stack, Transpose
    from llamazoo.weights.save import outgoing
    from llamazoo.weights.store import Outgoing, Store

__all__ = [
    "Activation",
    "ActivationPart",
    "ArchitectureSpec",
    "Attention",
    "AttentionPart",
    "Block",
    "BlockPart",
    "CannotRewind",
    "ChatTemplate",
    "Checkpoint",
    "Column",
    "Component",
    "ComponentOptions",
    "ConformanceError",
    "ContextLengthError",
    "Conversation",
    "DataError",
    "DataSet",
    "Decoder",
    "DecoderState",
    "Description",
    "Difference",
    "DivergedError",
    "Draw",
    "Drop",
    "DuplicateComponentError",
    "Embedding",
    "EmbeddingPart",
    "Example",
    "Examples",
    "ExpertLoad",
    "FeedForward",
    "FeedForwardPart",
    "FileTokenizer",
    "Format",
    "Fraction",
    "Fuse",
    "Generation",
    "Head",
    "HeadPart",
    "Init",
    "InputError",
    "Interleave",
    "Kernel",
    "KernelError",
    "KernelPart",
    "KeyValueState",
    "LayerSpec",
    "LlamazooError",
    "LoadReport",
    "Losses",
    "NonFiniteError",
    "NonNegative",
    "Norm",
    "NormPart",
    "Outgoing",
    "Part",
    "PathEscapeError",
    "Piece",
    "Place",
    "PluginError",
    "PluginVersionWarning",
    "Point",
    "Position",
    "PositionPart",
    "Positive",
    "RankTokenizer",
    "Recipe",
    "Registry",
    "Rename",
    "Residual",
    "ResourceLimitError",
    "RotaryRows",
    "Router",
    "RouterPart",
    "Routing",
    "Row",
    "Rule",
    "SamplingError",
    "SaveError",
    "Score",
    "Share",
    "Site",
    "Size",
    "Spare",
    "SpecError",
    "Split",
    "SplitGroups",
    "SplitTransposed",
    "Stack",
    "State",
    "StateError",
    "Step",
    "Store",
    "TemplateError",
    "TokenState",
    "Tokenizer",
    "TokenizerError",
    "Trained",
    "TrainingError",
    "Transpose",
    "UnknownComponentError",
    "UnsupportedError",
    "Visible",
    "Watcher",
    "WeightsError",
    "Wiring",
    "as_wide_as_float32",
    "at_least_float32",
    "build_model",
    "correct_load",
    "default_registry",
    "depict",
    "describe",
    "differences",
    "divide",
    "evaluate",
    "expert_load",
    "generate",
    "grouped_ends",
    "grouped_linear",
    "hookimpl",
    "load_model",
    "load_spec",
    "load_tokenizer",
    "open_data",
    "outgoing",
    "parameter",
    "part",
    "refuse",
    "register",
    "save_model",
    "stream",
    "train",
    "zoo_names",
]

_HOMES = {
    "llamazoo.build": ("build_model", "load_model", "save_model"),
    "llamazoo.chat.template": ("ChatTemplate",),
    "llamazoo.contract.component": (
        "Component",
        "LayerSpec",
        "Part",
        "Site",
        "as_wide_as_float32",
        "at_least_float32",
        "parameter",
        "refuse",
    ),
    "llamazoo.contract.draw": ("Draw", "Init"),
    "llamazoo.contract.grouped": ("grouped_ends", "grouped_linear"),
    "llamazoo.contract.kernel": ("Kernel", "Visible"),
    "llamazoo.contract.kinds": (
        "Activation",
        "Attention",
        "Block",
        "Embedding",
        "FeedForward",
        "Head",
        "Norm",
        "Place",
        "Position",
        "RotaryRows",
        "Router",
        "Routing",
    ),
    "llamazoo.contract.options": ("ComponentOptions", "Fraction", "NonNegative", "Positive", "Size"),
    "llamazoo.contract.spare": ("Spare",),
    "llamazoo.contract.split": ("Column", "Row", "Share"),
    "llamazoo.contract.state": ("KeyValueState", "State", "TokenState"),
    "llamazoo.contract.step": ("Losses", "Step"),
    "llamazoo.contract.wiring": ("Residual", "Wiring"),
    "llamazoo.data.config": ("open_data",),
    "llamazoo.data.example": ("DataSet", "Example", "Examples"),
    "llamazoo.decoder": ("Decoder",),
    "llamazoo.decoder_state": ("DecoderState",),
    "llamazoo.cost": ("Description", "describe"),
    "llamazoo.diagram.depict": ("depict",),
    "llamazoo.errors": (
        "CannotRewind",
        "ConformanceError",
        "ContextLengthError",
        "DataError",
        "DivergedError",
        "DuplicateComponentError",
        "InputError",
        "KernelError",
        "LlamazooError",
        "NonFiniteError",
        "PathEscapeError",
        "PluginError",
        "PluginVersionWarning",
        "ResourceLimitError",
        "SamplingError",
        "SaveError",
        "SpecError",
        "StateError",
        "TemplateError",
        "TokenizerError",
        "TrainingError",
        "UnknownComponentError",
        "UnsupportedError",
        "WeightsError",
    ),
    "llamazoo.generation.generate": ("Generation", "Piece", "generate", "stream"),
    "llamazoo.generation.conversation": ("Conversation",),
    "llamazoo.generation.ranks": ("RankTokenizer",),
    "llamazoo.generation.tokenizer": ("FileTokenizer", "Tokenizer", "load_tokenizer"),
    "llamazoo.hooks": ("hookimpl",),
    "llamazoo.load_balance": ("ExpertLoad", "correct_load", "expert_load"),
    "llamazoo.parallel.tensor": ("divide",),
    "llamazoo.registry": ("Registry", "default_registry", "register"),
    "llamazoo.spec.architecture": ("ArchitectureSpec",),
    "llamazoo.spec.compose": ("load_spec", "zoo_names"),
    "llamazoo.spec.differences": ("Difference", "differences"),
    "llamazoo.spec.part": (
        "ActivationPart",
        "AttentionPart",
        "BlockPart",
        "EmbeddingPart",
        "FeedForwardPart",
        "HeadPart",
        "KernelPart",
        "NormPart",
        "PositionPart",
        "RouterPart",
        "part",
    ),
    "llamazoo.training.evaluate": ("Score", "evaluate"),
    "llamazoo.training.loop": ("Trained", "train"),
    "llamazoo.training.recipe": ("Recipe",),
    "llamazoo.training.watch": ("Point", "Watcher"),
    "llamazoo.weights.checkpoint": ("Checkpoint", "Format"),
    "llamazoo.weights.load": ("LoadReport",),
    "llamazoo.weights.rule": (
        *("Drop", "Fuse", "Interleave", "Rename", "Rule", "Split", "SplitGroups", "SplitTransposed", "Stack", "Transpose"),
    ),
    "llamazoo.weights.save": ("outgoing",),
    "llamazoo.weights.store": ("Outgoing", "Store"),
}
_ROOMS = ("ablation", "testing")  # with names of their own
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"llamazoo.{name}")
    if name not in _HOME:
        raise AttributeError(f"llamazoo has no {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
