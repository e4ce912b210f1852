"""What docs/ say is so: their Python runs, their specs load, and what is made from code is current."""

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import llamazoo
from llamazoo.cli.reference import reference
from llamazoo.data.config import SOURCES, read_data
from llamazoo.data.corpus import TextData
from llamazoo.data.probes.copying import Copying
from llamazoo.testing import CHECKS, failures, subject, told

DOCS = Path(__file__).parents[1] / "docs"
DYT = DOCS.parent / "plugins" / "llamazoo-dyt"


def sections(page: str) -> dict[str, str]:
    """The sections of a page by heading."""
    _, *found = re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)
    return dict(section.split("\n", 1) for section in found)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


PLUGINS = sections("plugins.md")
DATA = (DOCS / "data.md").read_text()
BY_HAND = "From an empty folder to a published package"


def run(heading: str, folder: Path) -> dict[str, Any]:
    """What the Python of a section defines; from a file, where pydantic finds what stands under a field."""
    path = folder / "section.py"
    path.write_text("\n\n".join(blocks(PLUGINS[heading], "python")))
    return runpy.run_path(str(path))


@pytest.mark.parametrize("heading", [heading for heading, text in PLUGINS.items() if blocks(text, "python")])
def test_the_python_of_every_section_runs(heading: str, tmp_path: Path) -> None:
    assert run(heading, tmp_path)


@pytest.mark.parametrize("heading", [heading for heading, text in PLUGINS.items() if blocks(text, "yaml")])
def test_the_specs_of_every_section_load(heading: str) -> None:
    for block in blocks(PLUGINS[heading], "yaml"):
        assert llamazoo.load_spec(yaml.safe_load(block)).plugins == {"llamazoo-dyt": "0.1.0"}


def solid(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_the_package_that_is_built_line_by_line_is_the_one_in_plugins() -> None:
    *module, test = blocks(PLUGINS[BY_HAND], "python")
    assert test.startswith("# tests/test_dyt.py\n")
    assert solid("\n".join(module)) == solid((DYT / "llamazoo_dyt" / "__init__.py").read_text())
    (project,) = blocks(PLUGINS[BY_HAND], "toml")
    assert tomllib.loads(project) == tomllib.loads((DYT / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    ("heading", "name", "checks"),
    [
        ("States", "Fading", ("cached", "padding", "segments", "state_rows", "rewind", "splits", "options")),
        ("Splits", "Normed", ("splits", "gradients", "dtypes", "options")),
    ],
)
def test_the_components_of_the_page_keep_the_contract(heading: str, name: str, checks: tuple[str, ...], tmp_path: Path) -> None:
    found = failures(subject(run(heading, tmp_path)[name]), list(checks))
    assert found == [], told(found)


# An activation with a parameter, without which a missing inside() could not be told.
GAIN = '''
class Gain(llamazoo.Activation):
    """x times a number."""

    name = "gain"

    def __init__(self, options, site):
        super().__init__(options, site)
        self.by = llamazoo.parameter(1)

    def reset(self, draw):
        draw.ones(self.by)

    def forward(self, x):
        return x * self.by
'''
UNMARKED = {
    "self.whole(self.temperature)": "self.temperature",
    "self.own_heads(self.gain, 0)": "self.gain[: h.shape[-1]]",
    "self.total(h @ self.down)": "(h @ self.down)",
    "self.whole(self.total(h.square().sum(-1, keepdim=True)))": "self.total(h.square().sum(-1, keepdim=True))",
    "self.inside(self.activation, self.up(x))": "self.activation(self.up(x))",
}


def splits_fail(text: str, folder: Path) -> bool:
    """Whether the check finds something in the page's example, with an activation that learns."""
    path = folder / "example.py"
    path.write_text(text.replace('part("silu")', 'part("gain")') + GAIN)
    found = runpy.run_path(str(path))
    return bool(CHECKS["splits"](subject(found["Normed"], registry=llamazoo.default_registry().extended(found["Gain"]))))


def test_every_mark_of_the_example_is_needed(tmp_path: Path) -> None:
    text = "\n".join(blocks(PLUGINS["Splits"], "python"))
    assert not splits_fail(text, tmp_path)
    for marked, unmarked in UNMARKED.items():
        assert marked in text
        assert splits_fail(text.replace(marked, unmarked), tmp_path), f"{unmarked} goes unnoticed"


def test_the_page_says_how_many_checks_there_are() -> None:
    assert f"all {len(CHECKS) + 2} checks hold" in PLUGINS["Testing"]


def test_every_variable_and_hook_of_the_page_is_one() -> None:
    assert {name for name in PLUGINS if name.startswith("`llamazoo_")} == {
        f"`{name}`" for name in vars(llamazoo.hooks) if name.startswith("llamazoo_")
    }


def test_the_reference_is_current() -> None:
    current = (DOCS / "reference.md").read_text() == reference()
    assert current, "docs/reference.md is not what the code says; run: llamazoo reference > docs/reference.md"


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", (DOCS / page).read_text()):
        path = DOCS / target if target else DOCS / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_drawing_of_the_page_is_current() -> None:
    current = (DOCS / "llama-7b.svg").read_text(encoding="utf-8") == llamazoo.depict(llamazoo.load_spec("llama-7b"), "llama-7b")
    assert current, "docs/llama-7b.svg is not what the code draws; run: llamazoo show llama-7b --diagram docs/llama-7b.svg"


def test_the_page_on_data_names_every_source_with_its_options_and_their_defaults() -> None:
    rows = {row.split("`")[1]: row for row in re.findall(r"^\| `.*$", DATA, re.MULTILINE)}
    for source, config in SOURCES.items():
        own = {name: field for name, field in config.model_fields.items() if name not in (*TextData.model_fields, "source")}
        for name, field in own.items():
            if name == "validation_examples":
                continue
            assert f"`{name}`" in rows[source], f"{source}: {name}"
            if isinstance(field.default, int | float):
                assert f"`{name}` ({field.default}" in rows[source], f"{source}: {name}"
    assert f"`validation_examples` ({Copying().validation_examples})" in DATA


def test_the_descriptions_on_the_page_on_data_can_be_read(tmp_path: Path) -> None:
    for block in blocks(DATA, "yaml"):
        read_data(yaml.safe_load(block)["data"])
    for block in blocks(DATA, "python"):
        (tmp_path / "page.py").write_text(block)
        found = runpy.run_path(str(tmp_path / "page.py"))
        assert found["training"][5].tokens.shape == (128,)
        assert len(found["validation"]) == 256
