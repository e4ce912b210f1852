"""Files as a corpus: a text each, a JSON object on each line, or the column of a table."""

import glob
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llamazoo.data.texts.document import Document
from llamazoo.errors import DataError
from llamazoo.extras import optional

__all__ = ["FileTexts"]

MAX_DOCUMENT = 256 << 20  # bytes; a whole document is held at once, as text and as ids
CHUNK = 1 << 20
ROWS = 1024


class FileTexts:
    """The documents of .txt, .jsonl and .parquet files, in the order of the patterns, and of the paths that each one matches."""

    def __init__(self, patterns: Sequence[str], field: str) -> None:
        self.field = field
        self.paths = _matching(patterns)
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


def _matching(patterns: Sequence[str]) -> list[Path]:
    paths: dict[Path, None] = {}
    for pattern in patterns:
        plain = Path(pattern).expanduser()
        found = [plain] if plain.is_file() else [Path(p) for p in sorted(glob.glob(str(plain), recursive=True))]
        files = [path for path in found if path.is_file()]
        if not files:
            folder = " (a folder: name the files in it, such as FOLDER/**/*.txt)" if plain.is_dir() else ""
            raise DataError(f"{pattern}: no file is there{folder}")
        for path in files:
            if path.suffix not in READERS:
                raise DataError(f"{path}: is of an unknown sort; known: {', '.join(READERS)}")
        paths.update(dict.fromkeys(files))
    return list(paths)


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
            row = 0
            for batch in table.iter_batches(batch_size=ROWS, columns=[field]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    if value is None:
                        raise DataError(f"{path}: row {row} has nothing in the column {field!r}")
                    yield Document(f"{path}: row {row}", value)
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a parquet file: {error}") from None


def _check_column(schema: Any, field: str, where: str, types: Any) -> None:
    names = list(schema.names)
    if field not in names:
        raise DataError(f"{where}: has no column {field!r}; it has {', '.join(map(repr, names[:20])) or 'none'}")
    kind = schema.field(names.index(field)).type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f"{where}: the column {field!r} holds {kind}, not texts")


READERS: dict[str, Callable[[Path, str], Iterator[Document]]] = {".txt": _text, ".jsonl": _json_lines, ".parquet": _parquet}
