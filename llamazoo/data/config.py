"""What a data set is, as data: a source with its options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from llamazoo.data.corpus import FilesData, HubData, StdlibData
from llamazoo.data.example import DataSet
from llamazoo.data.probes.arithmetic import ModularAddition
from llamazoo.data.probes.brackets import Brackets
from llamazoo.data.probes.copying import Copying, SelectiveCopying
from llamazoo.data.probes.recall import AssociativeRecall, Induction
from llamazoo.data.probes.state_tracking import StateTracking
from llamazoo.errors import Problem, SpecError
from llamazoo.shelf import nearest
from llamazoo.spec.problems import explain

__all__ = ["PROBES", "SOURCES", "AnyData", "DataConfig", "open_data", "read_data"]

AnyData = (
    StdlibData
    | FilesData
    | HubData
    | AssociativeRecall
    | Induction
    | Copying
    | SelectiveCopying
    | ModularAddition
    | Brackets
    | StateTracking
)
TEXTS = (StdlibData, FilesData, HubData)
PROBES = (AssociativeRecall, Induction, Copying, SelectiveCopying, ModularAddition, Brackets, StateTracking)
SOURCES: dict[str, type[AnyData]] = {each.model_fields["source"].default: each for each in (*TEXTS, *PROBES)}


def read_data(value: object) -> AnyData:
    """The data set that a map describes. Raises SpecError, with the path to each field that is wrong."""
    if isinstance(value, (*TEXTS, *PROBES)):
        return value
    known = ", ".join(SOURCES)
    if not isinstance(value, Mapping):
        raise SpecError(f"a data set is a map with its `source`, not a {type(value).__name__}; known sources: {known}")
    if "source" not in value:
        raise SpecError(Problem(("source",), f"is required; known: {known}"))
    source = value["source"]
    if not isinstance(source, str) or source not in SOURCES:
        hint = nearest(source, list(SOURCES)) if isinstance(source, str) else ""
        raise SpecError(Problem(("source",), f"no source {str(source)[:80]!a}; {hint}known: {known}"))
    try:
        return SOURCES[source].model_validate(dict(value))
    except ValidationError as error:
        raise explain(error, SOURCES[source]) from None


# Read by `read_data` first, whose errors know what a source's fields are called.
DataConfig = Annotated[Annotated[AnyData, Field(discriminator="source")], BeforeValidator(read_data)]
"""A field of a pydantic model that holds a data set; a union by `source`."""


def open_data(config: AnyData | Mapping[str, Any], cache: Path | None = None, *, folder: Path | None = None) -> DataSet:
    """A data set, ready to be read: `open_data({"source": "stdlib", "tokenizer": "bytes"})`.

    Tokens of texts are made once and kept in `cache`: LLAMAZOO_CACHE, or llamazoo in the user's cache, unless given. Names of
    files count from `folder`, the current one unless given. Raises
    SpecError for a description that cannot be, DataError for a corpus that cannot be read or has nothing to learn from.
    """
    read = read_data(config)
    return read.open(cache, folder=folder) if isinstance(read, TEXTS) else read.open(cache)
