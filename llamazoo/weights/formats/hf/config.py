"""A config.json, read field by field: what nobody has asked for is unknown, and so not safe to ignore."""

from collections.abc import Mapping
from typing import Any

from llamazoo.errors import WeightsError

__all__ = ["ACTIVATIONS", "Config", "activation_name"]

ACTIVATIONS: dict[str, Any] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": {"type": "gelu", "approximate": "tanh"},
    "gelu_fast": {"type": "gelu", "approximate": "tanh"},
    "gelu_pytorch_tanh": {"type": "gelu", "approximate": "tanh"},
    "relu": "relu",
    "relu2": "relu2",
    "sigmoid": "sigmoid",
}
# Fields that say nothing about what any model computes when it is run.
SILENT = frozenset(
    (
        *("architectures", "auto_map", "transformers_version", "transformers.js_config", "unsloth_version", "unsloth_fixed"),
        *("_name_or_path", "_commit_hash", "_attn_implementation", "_attn_implementation_autoset", "_experts_implementation"),
        *(
            "use_cache",
            "cache_implementation",
            "torchscript",
            "return_dict",
            "output_attentions",
            "output_hidden_states",
            "task_specific_params",
        ),
        *("initializer_range", "initializer_factor", "pad_token_id", "pretraining_tp", "tf_legacy_loss", "use_bfloat16"),
        *("attention_dropout", "hidden_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop", "embedding_dropout", "residual_dropout"),
        *("chunk_size_feed_forward", "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "base_model_tp_plan"),
    )
)
REQUIRED: Any = object()


class Config:
    """The fields of a config.json, taken one at a time; `where` names the file in errors."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.fields = dict(fields)
        self.where = where

    def take(self, *names: str, default: Any = REQUIRED) -> Any:
        """The value of a field, by whichever of its names it has; null is as good as absent. WeightsError if two of them differ."""
        given = {name: value for name in names if (value := self.fields.pop(name, None)) is not None}
        if not given:
            if default is REQUIRED:
                raise self.wrong(names[0], "is required")
            return default
        value = next(iter(given.values()))
        if isinstance(value, int) and abs(value) >= 2**63:
            raise self.wrong(names[0], "is a number that nothing is measured in")
        if any(other != value or type(other) is not type(value) for other in given.values()):
            told = ", ".join(f"{name} {ascii(other)[:40]}" for name, other in given.items())
            raise self.wrong(" and ".join(given), f"are the same field, and differ: {told}")
        return value

    def nullable(self, name: str, default: Any) -> Any:
        """The value of a field that means something when it is null, and something else when it is absent."""
        return self.fields.pop(name, default)

    def number(self, *names: str, default: Any = REQUIRED, least: int = 1) -> Any:
        """A whole number from `least` to 2**40, for fields with which something is reckoned before a spec can check them."""
        value = self.take(*names, default=default)
        if value is not None and (type(value) is not int or not least <= value < 2**40):
            raise self.wrong(names[0], f"expected a whole number from {least}, found {ascii(value)[:60]}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false, and nothing that is merely like it."""
        value = self.take(name, default=default)
        if not isinstance(value, bool):
            raise self.wrong(name, f"expected true or false, found {ascii(value)[:60]}")
        return value

    def numbers(self, name: str, count: int) -> list[Any] | None:
        """A list with an entry for each of `count` layers, or None."""
        value = self.take(name, default=None)
        if value is not None and (not isinstance(value, list) or len(value) != count):
            raise self.wrong(name, f"expected a list of {count}, one for each layer, found {ascii(value)[:60]}")
        return value

    def only(self, name: str, *allowed: Any, told: str = "is not supported") -> None:
        """Take a field that may have these values alone, the first of which is its default."""
        value = self.take(name, default=allowed[0])
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise self.wrong(name, f"{ascii(value)[:60]} {told}; supported: {', '.join(map(repr, allowed))}")

    def activation(self, *names: str, default: str) -> Any:
        """An activation, as a spec names it."""
        name = self.take(*names, default=default)
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise self.wrong(names[0], f"{ascii(name)[:60]} is not supported; supported: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[name]

    def within(self, name: str) -> "Config | None":
        """The fields of an object that is the value of a field, to be finished with `done` as well; or None."""
        value = self.take(name, default=None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, f"expected an object, found {ascii(value)[:60]}")
        return Config(value, f"{self.where}: {name}")

    def ignore(self, *names: str) -> None:
        """Drop fields that say nothing about what this model computes."""
        for name in names:
            self.fields.pop(name, None)

    def done(self, what: str) -> None:
        """Raise WeightsError naming each field that says something, and that nobody has taken."""
        unknown = sorted(name for name in set(self.fields) - SILENT if self.fields[name] is not None)
        if unknown:
            raise WeightsError(f"{self.where}: {', '.join(map(ascii, unknown))}: not known for {what}, and so not safe to ignore")

    def wrong(self, name: str, told: str) -> WeightsError:
        return WeightsError(f"{self.where}: {name}: {told}")


def activation_name(part: Any, names: Mapping[str, Any] = ACTIVATIONS) -> str:
    """What a config calls an activation; that of no part, or of an unknown one, is silu, which `differences` finds out."""
    if part is None:
        return "silu"
    if part.type == "gelu" and part.options.approximate == "tanh":
        return "gelu_pytorch_tanh"
    return part.type if part.type in names else "silu"
