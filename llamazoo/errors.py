"""Everything that llamazoo raises on purpose, as one tree.

```
LlamazooError                     catch this to catch all of them
├── SpecError                     a specification that cannot be: where, what was found, what would do
│   └── UnknownComponentError     a part that no installed distribution offers
├── PluginError                   a distribution that could not be used
│   └── DuplicateComponentError   two of them offer one name
├── ResourceLimitError            more memory than there is, or than was allowed
├── WeightsError                  a checkpoint that is not what it should be
│   ├── PathEscapeError           it points outside its own folder
│   └── NonFiniteError            it holds NaN or infinity
├── SaveError                     nothing was written, or what was there is untouched
├── TokenizerError                a tokenizer that cannot be read, or does not fit
│   └── TemplateError             a chat template that cannot be used, or refuses the conversation
├── InputError                    tokens, masks or prompts that the model cannot take
│   ├── ContextLengthError        more tokens than the context or the cache holds
│   └── SamplingError             settings or logits that no token can be drawn from
├── StateError                    a decoding state used in a way that it cannot be
│   └── CannotRewind              it has forgotten what it would have to go back to
├── KernelError                   an attention kernel was asked for what it refuses
├── DataError                     a corpus that cannot be read, or has nothing to learn from
├── TrainingError                 a run that cannot go on, or be resumed
│   └── DivergedError             its loss or gradients are no longer finite
├── UnsupportedError              a combination that llamazoo does not offer (yet)
└── ConformanceError              a component broke the contract; see llamazoo.testing
```
"""

from dataclasses import dataclass
from typing import Any

__all__ = [
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
    "Problem",
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
]


MOST_SHOWN = 50  # problems in one message; `problems` has them all


class LlamazooError(Exception):
    """The root of all errors that llamazoo raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a specification: the path to the field, and the sentence about it."""

    path: tuple[str | int, ...]
    message: str

    def under(self, *parents: str | int) -> "Problem":
        return Problem((*parents, *self.path), self.message)

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.message}" if self.path else self.message


class SpecError(LlamazooError, ValueError):
    """A specification that cannot be built; `problems` lists every fault found, each with its path.

    It is a ValueError so that a component's own pydantic validators may raise it.
    """

    def __init__(self, *problems: str | Problem, source: str | None = None) -> None:
        self.problems = tuple(p if isinstance(p, Problem) else Problem((), p) for p in problems)
        self.source = source
        super().__init__(*problems)

    def __str__(self) -> str:
        head = f"{self.source}: " if self.source else ""
        if len(self.problems) == 1:
            return f"{head}{self.problems[0]}"
        shown = [f"  {problem}" for problem in self.problems[:MOST_SHOWN]]
        more = [f"  ... and {len(self.problems) - MOST_SHOWN} more"] if len(self.problems) > MOST_SHOWN else []
        return "\n".join([f"{head}{len(self.problems)} problems", *shown, *more])

    def under(self, *parents: str | int) -> "SpecError":
        """The same error, told from further out."""
        return type(self)(*(problem.under(*parents) for problem in self.problems), source=self.source)


class UnknownComponentError(SpecError):
    """A part that no installed distribution offers."""


class PluginError(LlamazooError):
    """A distribution that could not be used: it failed to load, or breaks the plugin contract."""


class PluginVersionWarning(UserWarning):
    """A spec was made with another version of a plugin than the one that is installed."""


class DuplicateComponentError(PluginError, SpecError):
    """Two distributions offer the same kind and name, and the request did not say which.

    It is a SpecError too, with the path to the field, where a spec asked.
    """


class ResourceLimitError(LlamazooError):
    """More memory than there is, or than was allowed; raised before anything is allocated."""


class WeightsError(LlamazooError):
    """A checkpoint that is not what it should be; nothing of it was loaded."""


class PathEscapeError(WeightsError):
    """A checkpoint names a file that is outside its own folder, or is no regular file."""


class NonFiniteError(WeightsError):
    """A tensor of a checkpoint holds NaN or infinity."""


class SaveError(LlamazooError):
    """A model could not be saved; whatever was there before is untouched."""


class TokenizerError(LlamazooError):
    """A tokenizer that cannot be read, or does not fit the model."""


class TemplateError(TokenizerError):
    """A chat template that cannot be used, takes too long or too much, or refuses the conversation."""


class InputError(LlamazooError, ValueError):
    """Tokens, masks or prompts that the model cannot take."""


class ContextLengthError(InputError):
    """More tokens than the context or the cache holds; raised before any work."""


class SamplingError(InputError):
    """Settings or logits from which no token can be drawn."""


class StateError(LlamazooError):
    """A decoding state used in a way that it cannot be."""


class CannotRewind(StateError):  # noqa: N818 - the field's word, and an answer rather than a fault
    """The state has forgotten what it would have to go back to; nothing was changed."""


class KernelError(LlamazooError):
    """An attention kernel was asked for something it refuses; the message says why."""


class DataError(LlamazooError):
    """A corpus that cannot be read, or has nothing to learn from."""


class TrainingError(LlamazooError):
    """A run that cannot go on, or be resumed; what was saved before is whole."""


class DivergedError(TrainingError):
    """A run's loss or gradients are no longer finite, and its recipe says that this ends it; the weights are the last good ones.

    `trained` is what was known of the run until then.
    """

    def __init__(self, message: str, trained: Any = None) -> None:
        self.trained = trained
        super().__init__(message)


class UnsupportedError(LlamazooError):
    """A combination that llamazoo does not offer (yet)."""


class ConformanceError(LlamazooError):
    """A component broke the contract: what was done, what was expected, what came instead."""
