"""Records on disk with a SHA-256 of themselves, so that one which was edited or damaged is not taken for what was written."""

import hashlib
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llamazoo.spec.problems import explain

__all__ = ["sealed", "unsealed"]

Record = TypeVar("Record", bound=BaseModel)
SEAL = re.compile(rb'(?s)(.*),\n "sha256": "([0-9a-f]{64})"\n\}\n')


def sealed(record: BaseModel) -> str:
    """A record as JSON; its last field is the SHA-256 of all that stands before it."""
    told = record.model_dump_json(indent=1).removesuffix("\n}")
    return f'{told},\n "sha256": "{hashlib.sha256(told.encode()).hexdigest()}"\n}}\n'


def unsealed(content: bytes, sort: type[Record]) -> Record:
    """The record that `sealed` wrote. Raises ValueError with what is wrong: fields that cannot be, a byte that was changed."""
    found = SEAL.fullmatch(content)
    if found is None:
        raise ValueError("it was cut short, or edited: it has no SHA-256 at its end")
    if hashlib.sha256(found[1]).hexdigest().encode() != found[2]:
        raise ValueError("it was edited, or damaged: its SHA-256 is another")
    try:
        return sort.model_validate_json(found[1] + b"\n}")
    except ValidationError as error:
        raise ValueError("; ".join(map(str, explain(error, sort).problems))) from None
