"""What docs/ say is so: their Python runs, their specs load, and what is made from code is current."""

import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import llamazoo
from llamazoo.ablation.experiment import read_experiment
from llamazoo.cli.reference import reference
from llamazoo.data.config import SOURCES, read_data
from llamazoo.data.corpus import TextData
from llamazoo.data.probes.copying import Copying
from llamazoo.parts import registry_with
from llamazoo.spec.yaml import read_yaml
from llamazoo.testing import CHECKS, failures, subject, told
from llamazoo.training.config import TrainingFile, read_training_file
from llamazoo.training.recipe import Recipe

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
TRAINING = (DOCS / "training.md").read_text()
ABLATION = sections("ablation.md")["From a norm of your own to its report"]
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
    rows: dict[str, str] = {}
    for row in re.findall(r"^\| `.*$", DATA, re.MULTILINE):
        rows[row.split("`")[1]] = rows.get(row.split("`")[1], "") + row
    for source, config in SOURCES.items():
        own = {name: field for name, field in config.model_fields.items() if name not in (*TextData.model_fields, "source")}
        for name, field in own.items():
            if name == "validation_examples":
                continue
            assert f"`{name}`" in rows[source], f"{source}: {name}"
            if isinstance(field.default, int | float):
                assert f"`{name}` ({field.default}" in rows[source], f"{source}: {name}"
    assert f"`validation_examples` ({Copying().validation_examples})" in " ".join(DATA.split())


def test_the_descriptions_on_the_page_on_data_can_be_read(tmp_path: Path) -> None:
    for block in blocks(DATA, "yaml"):
        read_data(yaml.safe_load(block)["data"])
    for block in blocks(DATA, "python"):
        (tmp_path / "page.py").write_text(block)
        found = runpy.run_path(str(tmp_path / "page.py"))
        assert found["training"][5].tokens.shape == (128,)
        assert len(found["validation"]) == 256


def rows(text: str) -> dict[str, str]:
    """The default of each field of a table."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) ?\|", text, re.MULTILINE))


def test_the_page_on_training_has_every_field_with_its_default() -> None:
    file, recipe, *_ = re.split(r"^##+ ", TRAINING, flags=re.MULTILINE)
    assert list(rows(file)) == list(TrainingFile.model_fields)
    assert list(rows(recipe)) == list(Recipe.model_fields)
    for model, defaults in ((TrainingFile, rows(file)), (Recipe, rows(recipe))):
        for name, field in model.model_fields.items():
            if field.is_required():
                assert defaults[name] == "required"
            elif field.default is not None:
                assert defaults[name].strip("`") == str(field.default).lower(), name
            else:
                assert not re.match(r"\d", defaults[name]), name


def test_the_training_file_of_the_page_is_read_and_its_python_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = blocks(TRAINING, "yaml")
    (tmp_path / "train.yaml").write_text(file)
    assert read_training_file(tmp_path / "train.yaml").train.steps == 98
    (code,) = blocks(TRAINING, "python")
    (tmp_path / "page.py").write_text(code)
    assert runpy.run_path(str(tmp_path / "page.py"))["score"].accuracy >= 0
    assert len(capsys.readouterr().out.splitlines()) == 8 + 1


def test_the_lines_of_metrics_on_the_page_are_those_that_are_written(tmp_path: Path) -> None:
    data = llamazoo.open_data({"source": "induction", "length": 8, "span": 3, "spans": 2, "vocab_size": 24})
    model = llamazoo.build_model("llama-tiny", overrides={"n_layers": 1, "dim": 16, "n_heads": 2, "hidden_dim": 32})
    llamazoo.train(model, data, Recipe(tokens=512, batch_tokens=256, seq_len=16), tmp_path)
    step, _, evaluation = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()[:3])
    told = [json.loads(line) for line in blocks(TRAINING, "json")[0].splitlines()]
    found = [step, next(e for e in (_, evaluation) if "evaluation" in e)]
    assert [list(line) for line in told] == [list(line) for line in found]
    assert list(told[1]["evaluation"]) == list(found[1]["evaluation"])


def test_the_experiments_of_the_page_on_ablations_are_read_with_its_part(tmp_path: Path) -> None:
    part, program = blocks(ABLATION, "python")
    compile(program, "program", "exec")
    (tmp_path / "my_norm.py").write_text(part)
    registry = registry_with([tmp_path / "my_norm.py"])
    found = [read_experiment(read_yaml(block), registry) for block in blocks(ABLATION, "yaml")]
    assert [len(each.candidates) for each in found] == [3, 4, 2, 3]
