"""How the models of an experiment are trained: a recipe that leaves the learning rate open."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from llamazoo.errors import SpecError
from llamazoo.spec.problems import explain
from llamazoo.training.recipe import LearningRate, Recipe, Training

__all__ = ["ExperimentTraining", "ProbeTraining", "read_training"]

T = TypeVar("T", bound=Training)


def _apart(rates: list[float]) -> list[float]:
    if len(set(rates)) < len(rates):
        raise SpecError("a learning rate stands here twice")
    return sorted(rates)


class ExperimentTraining(Training):
    """How each model is trained, and the learning rates to choose from."""

    lr: LearningRate | Annotated[list[LearningRate], Field(min_length=1), AfterValidator(_apart)]
    """The height of the learning rate; of several, each seed of each variant takes the one that was best in a trial of its own."""

    @property
    def rates(self) -> list[float]:
        """The learning rates to choose from, the lowest first."""
        return self.lr if isinstance(self.lr, list) else [self.lr]

    def at(self, lr: float) -> Recipe:
        """The recipe with this learning rate."""
        return _at(self, lr)


class ProbeTraining(Training):
    """How each model is trained on a probe."""

    lr: LearningRate | None = None
    """The height of the learning rate; unless given, the one that was chosen for the variant on the data."""

    @property
    def rates(self) -> list[float]:
        return [] if self.lr is None else [self.lr]

    def at(self, lr: float) -> Recipe:
        """The recipe with its own learning rate, or else this one."""
        return _at(self, lr if self.lr is None else self.lr)


def _at(training: Training, lr: float) -> Recipe:
    try:
        return Recipe.model_validate({**training.model_dump(exclude={"lr"}), "lr": lr})
    except ValidationError as error:  # of what is wrong only together with this rate
        raise explain(error, Recipe) from None


def read_training(model: type[T]) -> Callable[[Any], T | None]:
    """Reads the fields of a training, with the nearest known name where one is unknown."""

    def read(value: Any) -> T | None:
        if value is None or isinstance(value, model):
            return value
        try:
            return model.model_validate(dict(value) if isinstance(value, Mapping) else value)
        except ValidationError as error:
            raise explain(error, model) from None

    return read
