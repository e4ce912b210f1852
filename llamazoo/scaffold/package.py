"""Writes the package of a new plugin, from templates in which the words of one plugin stand for those of any."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from llamazoo.errors import PluginError, SaveError
from llamazoo.scaffold.names import Names
from llamazoo.shelf import nearest, shown
from llamazoo.weights.save import save_folder

__all__ = ["KINDS", "new_package"]

TEMPLATES = Path(__file__).parent / "templates"
KINDS = {path.name.removesuffix(".py.txt"): path for path in sorted((TEMPLATES / "kinds").glob("*.py.txt"))}
# Where in a spec a part of a kind stands, if not in a field of its own.
INSIDE = {
    "activation": "feed_forward: {type: mlp, activation: my_part}",
    "kernel": "attention: {type: multihead, kernel: my_part}",
    "router": "feed_forward: {type: experts, router: my_part}",
}


def new_package(name: str, kind: str, into: Path) -> Path:
    """Make the folder `into`/`name`, a complete plugin with one component of this kind; returns the folder.

    PluginError for a kind or a name that cannot be, SaveError if something is in the way; nothing is written then.
    """
    if kind not in KINDS:
        raise PluginError(f"no kind of part is named {shown(kind)}; {nearest(kind, KINDS)}kinds: {', '.join(KINDS)}")
    names = Names.of(name)
    used = _names_in(KINDS[kind].read_text())
    if names.of_class in used:
        raise PluginError(f"a plugin cannot be called {name!r}: its module uses {names.of_class} for something else; choose another name")
    folder = into / name
    if folder.is_symlink() or folder.exists():
        raise SaveError(f"{folder}: exists already; nothing is ever overwritten, so choose another name or remove it")
    files = _files(names, kind)

    def write(draft: Path) -> None:
        for path, text in files.items():
            (draft / path).parent.mkdir(exist_ok=True)
            (draft / path).write_text(text)

    save_folder(folder, write)
    return folder


def _files(names: Names, kind: str) -> dict[str, str]:
    """What the package holds, by path."""
    words = {
        "my-package": names.distribution,
        "my_package": names.module,
        "MyPart": names.of_class,
        "PART_KIND": kind,
        "PART_IN_A_SPEC": INSIDE.get(kind, f"{kind}: my_part").replace("my_part", names.component),
        "my_part": names.component,
    }
    return {
        "pyproject.toml": _filled(TEMPLATES / "pyproject.toml.txt", words),
        "README.md": _filled(TEMPLATES / "README.md.txt", words),
        ".gitignore": _filled(TEMPLATES / "gitignore.txt", words),
        f"{names.module}/__init__.py": _filled(KINDS[kind], words),
        f"{names.module}/py.typed": "",
        f"tests/test_{names.component}.py": _filled(TEMPLATES / "test.py.txt", words),
    }


def _filled(template: Path, words: Mapping[str, str]) -> str:
    """A template with its words replaced."""
    return re.sub(rf"\b({'|'.join(words)})\b", lambda found: words[found[0]], template.read_text())


def _names_in(module: str) -> set[str]:
    """The names that a module uses for things of its own or of others, attributes not among them."""
    found = set()
    for node in ast.walk(ast.parse(module)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
    return found
