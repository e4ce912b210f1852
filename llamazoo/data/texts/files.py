"""Files as a corpus: a text each, a JSON object on each line, or the column of a table."""

import codecs
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llamazoo.data.texts.document import Document
from llamazoo.errors import DataError
from llamazoo.extras import optional

__all__ = ["FileTexts"]

MAX_DOCUMENT = 256 << 20  # bytes; a whole document is held at once, as text and as ids
CHUNK = 1 << 20
ROWS = 1024  # of a table, at most, that are held at once
BATCH = 64 << 20  # bytes of a table that are held at once, unless one document has more


class FileTexts:
    """The documents of .txt, .jsonl and .parquet files, in the order of the patterns, and of the paths that each one matches."""

    def __init__(self, patterns: Sequence[str], field: str, folder: Path | None = None) -> None:
        """Find them, from `folder` on, the current one unless given. Raises DataError."""
        self.field = field
        self.paths = _matching(patterns, folder or Path())
        found = hashlib.sha256(field.encode())
        for path in self.paths:
            found.update(f"{path.suffix} {_digest(path)}\n".encode())
        self.digest = found.hexdigest()
        self.facts: dict[str, str | int | float] = {"source": "files", "files": len(self.paths)}

    def __iter__(self) -> Iterator[Document]:
        for path in self.paths:
            try:
                yield from READERS[path.suffix](path, self.field)
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _matching(patterns: Sequence[str], folder: Path) -> list[Path]:
    paths: dict[Path, Path] = {}  # by where they really lie, so that what is reached twice is read once
    for pattern in patterns:
        try:
            for path in _files(pattern, folder):
                paths.setdefault(path.resolve(), path)
        except OSError as error:
            raise DataError(f"{pattern}: cannot be looked for: {error.strerror or error}") from None
    return list(paths.values())


def _files(pattern: str, folder: Path) -> list[Path]:
    root, rest = _rooted(pattern, folder)
    plain = root / rest
    found = [plain] if plain.is_file() else [root / p for p in sorted(glob.glob(rest, root_dir=root, recursive=True))]
    files = [path for path in found if path.is_file()]
    if not files:
        hint = " (a folder: name the files in it, such as FOLDER/**/*.txt)" if plain.is_dir() else ""
        raise DataError(f"{pattern}: no file is there{hint}; looked from {root.absolute()}")
    for path in files:
        if path.suffix not in READERS:
            raise DataError(f"{path}: is of an unknown sort; known: {', '.join(READERS)}")
    return files


def _rooted(pattern: str, folder: Path) -> tuple[Path, str]:
    """Where a pattern counts from, and the rest: only what the user wrote is a pattern, not the names of what it lies in."""
    first, _, rest = pattern.partition("/")
    if first.startswith("~") and (home := os.path.expanduser(first)) != first:
        return Path(home), str(Path(rest.lstrip("/")))
    return folder, str(Path(pattern))


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return found.hexdigest()


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not UTF-8: {error.reason} at byte {error.start}") from None


def _text(path: Path, field: str) -> Iterator[Document]:
    if (size := path.stat().st_size) > MAX_DOCUMENT:
        raise DataError(f"{path}: has {size} bytes, and a document at most {MAX_DOCUMENT}; cut it into documents, lines of a .jsonl")
    yield Document(str(path), _decoded(path.read_bytes(), str(path)))


def _json_lines(path: Path, field: str) -> Iterator[Document]:
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(MAX_DOCUMENT + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_DOCUMENT:
                raise DataError(f"{where}: has more than {MAX_DOCUMENT} bytes, and a document at most so many")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            yield Document(where, _field(_decoded(line, where), field, where))


def _field(line: str, field: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds a {type(value).__name__}, not an object with the field {field!r}")
    if field not in value:
        raise DataError(f"{where}: has no field {field!r}; it has {', '.join(map(repr, list(value)[:20])) or 'none'}")
    if not isinstance(value[field], str):
        raise DataError(f"{where}: the field {field!r} holds a {type(value[field]).__name__}, not a text")
    return str(value[field])


def _parquet(path: Path, field: str) -> Iterator[Document]:
    parquet, arrow = optional("pyarrow.parquet", "parquet"), optional("pyarrow", "parquet")
    try:
        with parquet.ParquetFile(path) as table:
            _check_column(table.schema_arrow, field, str(path), arrow.types)
            for row, value in enumerate(_values(table, field), start=1):
                where = f"{path}: row {row}"
                if not value.is_valid:
                    raise DataError(f"{where} has nothing in the column {field!r}")
                if (size := value.as_buffer().size) > MAX_DOCUMENT:
                    raise DataError(f"{where} has {size} bytes in the column {field!r}, and a document at most {MAX_DOCUMENT}")
                yield Document(where, value.as_py())
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a parquet file: {error}") from None


def _values(table: Any, field: str) -> Iterator[Any]:
    """The values of a column, still pyarrow's own; never more rows at once than are sure to fit in BATCH bytes.

    A value that is written once may stand in every row, so no row is sure to be smaller than its whole group.
    """
    for number in range(table.num_row_groups):
        group = table.metadata.row_group(number)
        size = sum(group.column(i).total_uncompressed_size for i in range(group.num_columns) if _is_of(group.column(i), field))
        rows = min(max(BATCH // max(size, 1), 1), ROWS)
        # Without threads: with them, a row takes three times as long where rows are read one by one.
        for batch in table.iter_batches(batch_size=rows, row_groups=[number], columns=[field], use_threads=False):
            # By name, since pyarrow takes `a.b` for a path too: a struct `a` with a child `b` is read along.
            column = batch.column(batch.schema.names.index(field))
            yield from column


def _is_of(column: Any, field: str) -> bool:
    return str(column.path_in_schema) == field or str(column.path_in_schema).startswith(f"{field}.")


def _check_column(schema: Any, field: str, where: str, types: Any) -> None:
    names = list(schema.names)
    if (count := names.count(field)) != 1:
        wrong = f"has no column {field!r}" if not count else f"has {count} columns {field!r}"
        raise DataError(f"{where}: {wrong}; it has {', '.join(map(repr, names[:20])) or 'none'}")
    kind = schema.field(names.index(field)).type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f"{where}: the column {field!r} holds {kind}, not texts")


READERS: dict[str, Callable[[Path, str], Iterator[Document]]] = {".txt": _text, ".jsonl": _json_lines, ".parquet": _parquet}
