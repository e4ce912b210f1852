"""Every zoo file is the published model: its size, and what a Hugging Face configuration of it says."""

import json
from pathlib import Path
from typing import Any

import pytest

import llamazoo
from llamazoo.spec.compose import parse_spec
from llamazoo.spec.differences import differences
from llamazoo.weights.formats.hf.format import spec_of

OURS = {"llama-tiny", "llama-7b-layernorm", "llama-7b-learned"}  # not published models
PUBLISHED = sorted(set(llamazoo.zoo_names()) - OURS)


@pytest.fixture(scope="module")
def published(oracles: Path) -> dict[str, dict[str, Any]]:
    """By name, the configuration of each published model, and how many parameters it has."""
    found: dict[str, dict[str, Any]] = json.loads((oracles / "zoo.json").read_text())
    return found


@pytest.mark.parametrize("name", llamazoo.zoo_names())
def test_every_zoo_file_builds_on_meta_with_the_size_that_is_described(name: str) -> None:
    model = llamazoo.build_model(name, device="meta")
    described = llamazoo.describe(model.spec)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == described.parameters
    assert sum(p.numel() for p in model.parameters()) * described.dtype.itemsize == described.weight_bytes


def test_the_zoo_files_have_as_many_parameters_as_the_published_models(published: dict[str, dict[str, Any]]) -> None:
    counts = {name: llamazoo.describe(llamazoo.load_spec(name)).parameters for name in PUBLISHED}
    assert counts == {name: published[name]["parameters"] for name in PUBLISHED}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_zoo_file_is_the_published_model(name: str, published: dict[str, dict[str, Any]]) -> None:
    theirs = parse_spec(spec_of(published[name]["hf_config"], name))
    found = differences(llamazoo.load_spec(name), theirs)
    assert [str(each) for each in found if each.path not in ("bos_id", "eos_ids")] == []  # of which the configurations say nothing


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_zoo_file_says_what_is_known_of_the_published_model(name: str, published: dict[str, dict[str, Any]]) -> None:
    about = llamazoo.load_spec(name).about
    assert about.model_type == published[name]["hf_config"]["model_type"]
    assert None not in (about.licence, about.paper, about.released)


def test_every_published_model_has_a_zoo_file(published: dict[str, dict[str, Any]]) -> None:
    assert [name for name in published if name not in PUBLISHED] == [], "of zoo.json, not in the zoo"


def test_a_further_size_of_a_model_is_a_few_lines() -> None:
    for name in PUBLISHED:
        text = (Path(llamazoo.__file__).parent / "zoo" / f"{name}.yaml").read_text()
        if "extends:" in text and "model_type:" not in text:
            assert len(text.splitlines()) <= 10, name


def test_llama_7b_is_the_size_of_the_paper() -> None:
    assert llamazoo.describe(llamazoo.load_spec("llama-7b.yaml")).parameters == 6_738_415_616


def test_the_two_ablations_are_three_lines_at_most() -> None:
    for name in ("llama-7b-layernorm", "llama-7b-learned"):
        assert len((Path(llamazoo.__file__).parent / "zoo" / f"{name}.yaml").read_text().splitlines()) <= 3


def test_a_zoo_file_read_again_from_its_canonical_form_is_the_same() -> None:
    for name in llamazoo.zoo_names():
        spec = llamazoo.load_spec(name)
        assert parse_spec(spec.canonical()) == spec
        assert parse_spec(spec.canonical()).canonical() == spec.canonical()


def test_building_a_large_model_on_meta_takes_no_memory() -> None:
    model = llamazoo.build_model("llama-2-70b", device="meta")
    assert all(p.is_meta for p in model.parameters())
