"""The interpreter's own library as a corpus: real text that is on every machine."""

import hashlib
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from llamazoo.data.texts.document import Document
from llamazoo.errors import DataError

__all__ = ["LibraryTexts"]

APART = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


class LibraryTexts:
    """Every .py file of the standard library but its tests, by path; what is not UTF-8 is left out and counted."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(sysconfig.get_path("stdlib"))
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if path.is_file())
        found = hashlib.sha256()
        self._documents: list[Document] = []
        skipped = 0
        for name in names:
            if APART & set(name.split("/")):
                continue
            data = _read(folder / name)
            try:
                text = data.decode()
            except UnicodeDecodeError:
                skipped += 1
                continue
            found.update(f"{name} {len(data)}\n".encode() + data)
            self._documents.append(Document(name, text))
        if not self._documents:
            raise DataError(f"{folder}: holds no source of the standard library; this Python came without it (a zip file?)")
        self.digest = found.hexdigest()
        self.facts: dict[str, str | int | float] = {"source": "stdlib", "python": platform.python_version(), "files not UTF-8": skipped}

    def __iter__(self) -> Iterator[Document]:
        yield from self._documents


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
