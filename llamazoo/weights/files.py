"""Opens the files of a folder that a stranger may have made: nothing outside it, nothing that is no plain file, no surprising JSON."""

import json
import stat
from pathlib import Path
from typing import Any

from llamazoo.errors import PathEscapeError, WeightsError

__all__ = ["plain_file", "read_json", "strict_json"]

MAX_JSON = 64 << 20


def plain_file(folder: Path, name: object) -> Path:
    """The regular file `name` in `folder`; PathEscapeError, before anything is opened, if it lies elsewhere or is no such file.

    Links may lead to the blobs of a Hugging Face cache (folder/../../blobs), which is how that cache is made, but not
    anywhere else outside.
    """
    if not isinstance(name, str) or not name or "\0" in name or len(name) > 255:
        raise PathEscapeError(f"{folder}: {ascii(name)[:80]} is no file name")
    path = folder / name
    root = folder.resolve()
    roots = [root, *([root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [])]
    try:
        real = path.resolve()
        if Path(name).is_absolute() or not any(real.is_relative_to(allowed) for allowed in roots):
            raise PathEscapeError(f"{folder}: {ascii(name)[:80]} points outside this folder")
        if not real.exists():
            raise WeightsError(f"{folder}: the file {ascii(name)[:80]} is missing")
        if not stat.S_ISREG(real.stat().st_mode):
            raise PathEscapeError(f"{folder}: {ascii(name)[:80]} is no regular file")
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path}: {error}") from None
    return real


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; WeightsError if it is not one, is too large, or gives a key twice."""
    size = path.stat().st_size
    if size > MAX_JSON:
        raise WeightsError(f"{path}: has {size} bytes; such a file has at most {MAX_JSON}")
    return strict_json(path.read_bytes(), str(path))


def strict_json(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data`; no key twice in one object, no NaN or infinity."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is given twice")
        return found

    def refused(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=refused)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where}: is not the JSON it should be: {error}") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{where}: holds a {type(value).__name__}, not a JSON object")
    return value
