"""The house itself: who may import whom, that names are complete and agree, and that nothing stands where it should not."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import llamazoo
from llamazoo import errors
from llamazoo.contract.kinds import Place
from llamazoo.spec.compose import load_spec
from llamazoo.spec.patch import merge
from llamazoo.testing import BASE

PACKAGE = Path(llamazoo.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [name for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "llamazoo.")]
BUILT_IN = sorted(
    {o.component for o in llamazoo.default_registry().offers() if o.distribution == "llamazoo"}, key=lambda c: (c.kind, c.name)
)

# For each room: the rooms that it may import from, besides itself. The first that fits counts.
BELOW_CLI = " ".join(
    (
        "ablation build chat contract cost data decoder decoder_state device diagram discovery errors extras generation hooks",
        "parallel parts plan registry shelf spec training weights",
    )
)
ROOMS = {
    "errors": "",
    "extras": "errors",
    "contract": "errors",
    "hooks": "",
    "discovery": "errors",
    "shelf": "discovery errors",
    "admission": "shelf hooks contract errors",
    "registry": "admission shelf discovery contract errors",
    "parts": "registry contract errors",
    "spec": "registry shelf discovery contract errors",
    "decoder_state": "spec contract errors",
    "load_balance": "contract errors",
    "rows": "decoder_state contract errors",
    "decoder": "rows decoder_state device spec contract errors",
    "device": "shelf errors",
    "cost": "device decoder spec contract errors",
    "diagram": "decoder spec contract errors",
    "weights": "decoder spec registry shelf discovery contract errors",
    "parallel": "decoder contract errors",
    "plan": "decoder parallel shelf spec contract errors",
    "__main__": "cli",
    "build": "cost decoder device parallel spec registry weights contract errors",
    "chat": "weights errors",
    "generation": "chat decoder decoder_state weights registry errors",
    "data": "generation weights spec shelf contract extras errors",
    "training": "data extras build cost decoder device load_balance weights spec registry discovery contract errors",
    "ablation": "training data extras build cost decoder device diagram parts spec registry discovery shelf contract errors",
    "components.builtin": "components contract generation hooks weights",
    "components.position.scaling": "contract errors",
    "components": "components.position.scaling contract spec.part errors",
    "testing": BELOW_CLI,
    "scaffold": "registry shelf discovery weights errors",
    "cli": BELOW_CLI + " testing scaffold",
}
NO_COMPONENTS = ("components.position.scaling",)  # beside components, and none themselves
FORBIDDEN = ("util", "utils", "helper", "helpers", "manager", "base", "common", "misc")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def room_of(module: str) -> str:
    return max((room for room in ROOMS if within(module, room)), key=len, default="")


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(node: ast.AST) -> Iterator[str]:
    """The modules of llamazoo that a file imports when it runs, without `llamazoo.`; those only for types are not among them."""
    for child in ast.iter_child_nodes(node):
        if only_for_types(child):
            continue
        if isinstance(child, ast.Import):
            yield from (a.name.removeprefix("llamazoo.") for a in child.names if a.name.split(".")[0] == "llamazoo")
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "a relative import does not say where it goes"
            if child.module == "llamazoo" or (child.module or "").startswith("llamazoo."):
                inside = child.module.removeprefix("llamazoo").removeprefix(".")
                # `from llamazoo.components import norm` imports a module, `from llamazoo.errors import X` a name of one.
                for alias in child.names:
                    deeper = f"{inside}.{alias.name}" if inside else alias.name
                    yield deeper if f"llamazoo.{deeper}" in MODULES else inside
        else:
            yield from imports(child)


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p) != "__init__"], ids=module_of)
def test_imports_point_down_the_house(path: Path) -> None:
    module = module_of(path).removesuffix(".__init__")
    room = room_of(module)
    assert room, f"{module} stands in no room: add it to the table"
    apart = room in ("components", *NO_COMPONENTS)  # whose files do not lean on each other
    allowed = ROOMS[room].split() if apart else [room.split(".")[0], *ROOMS[room].split()]
    wrong = [name for name in imports(ast.parse(path.read_text())) if not any(within(name, other) for other in allowed)]
    assert wrong == []


def test_nobody_imports_a_component_but_the_list_of_them() -> None:
    imported = [(module_of(path), name) for path in FILES for name in imports(ast.parse(path.read_text()))]
    assert {who for who, name in imported if within(name, "components") and name not in NO_COMPONENTS} == {"components.builtin"}
    assert not {component.__module__.removeprefix("llamazoo.") for component in BUILT_IN} & set(NO_COMPONENTS)


def test_no_room_of_the_table_is_empty() -> None:
    modules = {module_of(path).removesuffix(".__init__") for path in FILES}
    assert [room for room in ROOMS if not any(within(module, room) for module in modules)] == []


def in_functions(node: ast.AST, inside: bool = False) -> Iterator[int]:
    """The lines of imports that stand in a function or under a `try`."""
    for child in ast.iter_child_nodes(node):
        if inside and isinstance(child, ast.Import | ast.ImportFrom):
            yield child.lineno
        yield from in_functions(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Try))


def test_no_import_stands_in_a_function_or_under_a_try() -> None:
    assert {module_of(path): lines for path in FILES if (lines := list(in_functions(ast.parse(path.read_text()))))} == {}


def test_modules_are_imported_by_name_in_six_places_only() -> None:
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("import_module", "module_from_spec", "spec_from_file_location"):
                found.add(module_of(path))
            assert not (isinstance(node, ast.Name) and node.id in ("__import__", "eval", "exec")), f"{module_of(path)}:{node.lineno}"
    assert found == {"__init__", "ablation.__init__", "extras", "parts", "testing.__init__", "testing.ranks"}


# Names


def rank(name: str) -> tuple[int, str]:
    """The order that ruff's RUF022 asks for: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def defined(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name


WITH_NAMES = [path for path in FILES if path.name != "__init__.py"]


@pytest.mark.parametrize("path", WITH_NAMES, ids=module_of)
def test_every_module_says_in_order_what_it_offers(path: Path) -> None:
    module = importlib.import_module(f"llamazoo.{module_of(path)}")
    assert inspect.getdoc(module), "a module begins by saying what it is"
    names = getattr(module, "__all__", None)
    assert names is not None, "no __all__"
    assert names == sorted(set(names), key=rank)
    assert [name for name in names if not hasattr(module, name)] == []
    assert [name for name in names if name.startswith("_")] == []


def test_a_module_without_names_has_no_content() -> None:
    empty = [
        path for path in FILES if path.name == "__init__.py" and path.parent not in (PACKAGE, PACKAGE / "ablation", PACKAGE / "testing")
    ]
    assert [module_of(path) for path in empty if len(ast.parse(path.read_text()).body) > 1] == []
    assert all(ast.get_docstring(ast.parse(path.read_text())) for path in empty)


def test_no_private_name_is_imported_from_another_module() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llamazoo"):
                found += [f"{module_of(path)}: {node.module}.{a.name}" for a in node.names if a.name.startswith("_")]
    assert found == []


@pytest.mark.parametrize("path", [p for p in FILES if (PACKAGE / "contract") in p.parents], ids=module_of)
def test_every_class_of_the_contract_is_offered(path: Path) -> None:
    module = importlib.import_module(f"llamazoo.{module_of(path)}")
    assert {name for name in defined(path) if not name.startswith("_")} <= set(getattr(module, "__all__", []))


def declared(source: str) -> dict[str, set[str]]:
    """From which module each public name comes, as the type checker reads it."""
    for node in ast.parse(source).body:
        if only_for_types(node):
            return {child.module: {a.name for a in child.names} for child in node.body}
    raise AssertionError("no TYPE_CHECKING block")


def test_the_public_names_agree_wherever_they_are_listed() -> None:
    typed = declared((PACKAGE / "__init__.py").read_text())
    resolved = {name: home for home, names in llamazoo._HOMES.items() for name in names}
    assert resolved == {name: home for home, names in typed.items() for name in names}
    assert llamazoo.__all__ == sorted(resolved, key=rank)


@pytest.mark.parametrize("name", llamazoo.__all__)
def test_every_public_name_resolves_and_is_offered_at_home(name: str) -> None:
    value = getattr(llamazoo, name)
    home = importlib.import_module(llamazoo._HOME[name])
    assert value is getattr(home, name)
    assert name in home.__all__
    assert name in dir(llamazoo)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value), "a public name says what it is"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="llamazoo has no 'Norn'"):
        llamazoo.Norn


def test_importing_llamazoo_imports_neither_torch_nor_itself_whole() -> None:
    script = "import sys, llamazoo; print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'pydantic', 'llamazoo', 'numpy')))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['llamazoo']"


def test_the_tree_of_errors_is_drawn_completely() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([\u2502\u251c\u2514\u2500 ]*)([A-Z]\w*Error|CannotRewind)\s{2,}\S", line):
            depth, name = len(found[1]), found[2]
            above = [(d, n) for d, n in above if d < depth]
            drawn[name] = above[-1][1] if above else "Exception"
            above.append((depth, name))
    real = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and not issubclass(value, Warning)
    }
    assert drawn == real
    assert set(real) | {"PluginVersionWarning", "Problem"} == set(errors.__all__)
    assert set(real) <= set(llamazoo.__all__)


def test_no_error_of_llamazoo_is_defined_elsewhere() -> None:
    found = []
    for path in FILES:
        module = importlib.import_module(
            "llamazoo" if module_of(path) == "__init__" else f"llamazoo.{module_of(path)}".removesuffix(".__init__")
        )
        classes = [v for v in vars(module).values() if inspect.isclass(v) and issubclass(v, Exception)]
        found += [c for c in classes if c.__module__ == module.__name__ and module is not errors]
    assert found == []


# Components


@pytest.mark.parametrize("component", BUILT_IN, ids=lambda c: f"{c.kind} {c.name}")
def test_every_component_says_what_it_computes_and_of_which_kind_it_is(component: type[llamazoo.Component]) -> None:
    assert component.__doc__
    assert component.__doc__.split("\n")[0].endswith(".")
    assert re.fullmatch(r"[a-z][a-z0-9_]*", component.name)
    assert component.__name__ in importlib.import_module(component.__module__).__all__
    assert component.Options.model_validate({}) == component.Options(), "every option has a default"


def built(component: type[llamazoo.Component], options: dict[str, object]) -> llamazoo.Component:
    """The component alone, at the tiny spec's first layer, on the meta device."""
    spec = load_spec(BASE)
    registry = llamazoo.default_registry()
    made = component.Options.model_validate(options, context={"registry": registry})
    with torch.device("meta"):
        place = Place("main", spec.site().build(spec.position))
        further = (spec.layer(0),) if component.kind == "block" else ()
        return component(made, replace(spec.site(0, place), n_experts=8, top_k=2), *further)


WITH_EVERYTHING = {
    "multihead": {"qkv_bias": True, "out_bias": True, "qk_norm": "layernorm", "n_kv_heads": 1},
    "gated": {"bias": True},
    "mlp": {"bias": True},
    "linear": {"bias": True},
    "latent": {"q_rank": 6, "bias": True},
}
WHOLE = {"latent": {"q_down", "kv_down"}}  # latents are shared by all heads, and marked where heads look at them


@pytest.mark.parametrize("component", BUILT_IN, ids=lambda c: f"{c.kind} {c.name}")
def test_every_linear_layer_of_a_component_with_splits_is_declared_or_known_to_be_whole(component: type[llamazoo.Component]) -> None:
    part = built(component, WITH_EVERYTHING.get(component.name, {}))
    layers, whole = {name for name, child in part.named_children() if isinstance(child, nn.Linear)}, WHOLE.get(component.name, set())
    assert layers - whole <= set(part.splits())
    assert whole <= layers - set(part.splits())


def test_a_tied_head_is_split_as_its_table_is() -> None:
    spec = load_spec(merge(BASE, {"head": {"tied": True}}))
    with torch.device("meta"):
        model = llamazoo.Decoder(spec)
    assert model.head.splits()["weight"] == model.embedding.splits()["weight"]


# Files


def test_no_file_is_named_for_nothing_in_particular() -> None:
    assert [str(p.relative_to(ROOT)) for p in texts() if p.stem.lower().strip("_") in FORBIDDEN] == []


def test_no_path_of_one_machine_is_in_any_text() -> None:
    # Spelt in halves, so that this file does not find itself.
    homes = re.compile("|".join("/" + name + "/" for name in ("work", "ro" + "ot", "ho" + "me", "Us" + "ers")) + r"|[A-Z]:\\\\Users")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if homes.search(line)
    ]
    assert found == []


def texts() -> Iterator[Path]:
    """The files of this repository that people read."""
    for folder in ("llamazoo", "tests", "plugins", "examples", "docs"):
        yield from (p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in (".py", ".md", ".yaml", ".toml") and _own(p))
    yield from (p for p in sorted(ROOT.iterdir()) if p.suffix in (".md", ".toml", ".txt"))


def _own(path: Path) -> bool:
    inside = path.relative_to(ROOT).parts
    return path.is_file() and not any(part.startswith(".") or part in ("build", "dist", "__pycache__") for part in inside)
