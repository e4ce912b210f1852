"""Reads YAML as people mean it, and refuses what can be meant in two ways.

The data that YAML 1.2 and JSON share: maps, lists, strings, numbers, true, false, null. So `1e-5` is a number and `no` is a
word; a key given twice, an anchor, a tag or a second document is an error, with its line.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llamazoo.errors import SpecError

__all__ = ["read_yaml", "read_yaml_file"]

MAX_BYTES = 1 << 20
MAX_DEPTH = 64

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,29}|[1-9][0-9]{0,2}(_[0-9]{3}){1,9})")  # 2_000_000 too
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
OCTAL_LOOKALIKE = re.compile(r"[-+]?0[0-9]+|[0-9]{31,}")
CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_yaml_file(path: Path) -> Any:
    """The data in a YAML or JSON file; SpecError with the line for anything out of order."""
    if not path.is_file():
        raise SpecError("is not a regular file", source=str(path))
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SpecError(f"has {size} bytes; a spec has at most {MAX_BYTES}", source=str(path))
    try:
        return read_yaml(path.read_bytes().decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise SpecError(f"is not UTF-8 text: {error.reason} at byte {error.start}", source=str(path)) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", source=str(path)) from None


def read_yaml(text: str, source: str = "<text>") -> Any:
    """The data in a YAML text; SpecError with the line for anything out of order."""
    try:
        events = _checked(yaml.parse(text, Loader=yaml.SafeLoader), source)
        first = next(events, None)
        if first is None:
            raise SpecError("is empty", source=source)
        value = _node(first, events, source)
        for extra in events:
            raise _error("a second document begins; one file holds one", extra, source)
        return value
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
        raise SpecError(f"{where}{reason}", source=source) from None


def _checked(events: Iterator[Any], source: str) -> Iterator[Any]:
    """The events that carry data, none of them deeper than MAX_DEPTH, none with a tag or an anchor."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _error(f"nested more than {MAX_DEPTH} deep", event, source)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _error("anchors and aliases are not used in specs; say it twice, or use `extends`", event, source)
        if getattr(event, "tag", None) is not None:
            raise _error(f"the tag {event.tag!r} is not used in specs; nothing is made or run because a file says so", event, source)
        if not isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentStartEvent | yaml.DocumentEndEvent):
            yield event


def _node(event: Any, events: Iterator[Any], source: str) -> Any:
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event, source)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, source))
        return items
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        line = event.start_mark.line + 1
        if not isinstance(event, yaml.ScalarEvent):
            raise _error("a key must be a word", event, source)
        key = event.value
        if key in found:
            raise SpecError(f"the key {key!r} is given twice, on line {lines[key]} and on line {line}", source=source)
        lines[key] = line
        found[key] = _node(next(events), events, source)
    return found


def _scalar(event: Any, source: str) -> Any:
    text: str = event.value
    if not event.implicit[0]:  # quoted
        return text
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if OCTAL_LOOKALIKE.fullmatch(text):
        raise _error(f"{text[:20]} is no clear number: leading zeros mean octal to some; quote it if it is a word", event, source)
    if FLOAT.fullmatch(text):
        return float(
            text.replace(".inf", "inf")
            .replace(".Inf", "inf")
            .replace(".INF", "inf")
            .replace(".nan", "nan")
            .replace(".NaN", "nan")
            .replace(".NAN", "nan")
        )
    return text


def _error(message: str, event: Any, source: str) -> SpecError:
    return SpecError(f"line {event.start_mark.line + 1}: {message}", source=source)
