"""A data set of the Hugging Face hub as a corpus, through the package `datasets`."""

import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamazoo.data.texts.document import Document, utf8
from llamazoo.errors import DataError
from llamazoo.extras import optional

__all__ = ["HubTexts"]


class HubTexts:
    """One text of each row of a split; what `datasets` has downloaded once, it reads from its own cache."""

    def __init__(self, name: str, config: str | None, split: str, revision: str | None, field: str, folder: Path | None = None) -> None:
        """Load it; a name that is a folder's counts from `folder`, the current one unless given. Raises DataError."""
        self.where = f"hf {name}" + (f" {config}" if config else "") + f" [{split}]"
        self.field = field
        datasets = optional("datasets", "hf")
        try:
            self.rows: Any = datasets.load_dataset(_place(name, folder or Path(), self.where), config, split=split, revision=revision)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{self.where}: cannot be loaded: {str(error)[:500]}") from None
        if field not in self.rows.column_names:
            raise DataError(f"{self.where}: has no column {field!r}; it has {', '.join(map(repr, self.rows.column_names[:20]))}")
        self.rows = self.rows.select_columns([field])
        chosen = {"config": config, "revision": revision}
        self.facts: dict[str, str | int | float] = {
            "source": "hf",
            "name": name,
            "split": split,
            **{key: value for key, value in chosen.items() if value is not None},
        }

    @functools.cached_property
    def digest(self) -> str:
        """Of the texts, which are all read for it: the hub can change what a name stands for."""
        found = hashlib.sha256()
        for document in self:
            data = utf8(document)
            found.update(f"{len(data)}\n".encode() + data)
        return found.hexdigest()

    def __iter__(self) -> Iterator[Document]:
        for number, row in enumerate(self.rows):
            text = row[self.field]
            if not isinstance(text, str):
                raise DataError(f"{self.where}: row {number} has a {type(text).__name__} in the column {self.field!r}, not a text")
            yield Document(f"{self.where}: row {number}", text)


def _place(name: str, folder: Path, where: str) -> str:
    """What `datasets` is asked for: a folder by its whole path, since it looks into the current one by itself; else the name."""
    place = folder / os.path.expanduser(name)
    if name.startswith(("./", "../", "/", "~/")) or place.is_dir():
        if not place.is_dir():
            raise DataError(f"{where}: no folder is at {place.absolute()}")
        return str(place.absolute())
    if Path(name).exists():
        raise DataError(f"{where}: `datasets` would read {Path(name).absolute()} by that name; names count from {folder.absolute()}")
    return name
