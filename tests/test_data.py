"""Texts become data sets: where they are read from, how they are split, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

import llamazoo
from llamazoo.data.config import SOURCES, DataConfig, read_data
from llamazoo.data.corpus import Corpus
from llamazoo.data.example import IGNORED
from llamazoo.data.texts.document import held_out
from llamazoo.data.texts.library import LibraryTexts
from llamazoo.errors import DataError, SpecError, UnsupportedError
from llamazoo.spec.problems import explain

TEXTS = [f"document {i}: " + "so it goes, " * (i % 7) for i in range(60)]
SHARE = 0.3
HELD_OUT = [text for text in TEXTS if held_out(text.encode(), SHARE)]


def lines(path: Path, texts: list[str], field: str = "text") -> Path:
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    return path


def opened(cache: Path, *paths: Path | str, **options: Any) -> Corpus:
    found = read_data({"source": "files", "paths": [str(p) for p in paths], "validation": SHARE, **options}).open(cache)
    assert isinstance(found, Corpus)
    return found


def read(data: Corpus, split: str) -> list[str]:
    """The documents of a split of bytes, sorted."""
    documents = data.store.documents("training" if split == "training" else "validation")
    return sorted(bytes(documents[i].tolist()).decode() for i in range(len(documents)))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return lines(tmp_path / "corpus.jsonl", TEXTS)


# Sources


def test_the_standard_library_is_a_corpus_on_every_machine(tmp_path: Path) -> None:
    data = llamazoo.open_data({"source": "stdlib", "max_documents": 60}, tmp_path)
    facts = data.facts()
    assert (data.vocab_size, data.accuracy) == (256, False)
    assert facts["training tokens"] + facts["validation tokens"] > 250_000  # type: ignore[operator]
    assert facts["source"] == "stdlib"
    example = data.training(256, 0)[7]
    assert b"def " in bytes(data.training(8192, 0)[0].tokens.tolist())
    assert [each.shape for each in example] == [(256,)] * 3
    assert {each.dtype for each in example} == {torch.int64}
    assert data.validation(256)[0].learned > 200


def test_the_standard_librarys_tests_and_what_is_not_utf8_are_left_out(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.py", "test/x.py", "a/tests/x.py", "site-packages/x.py", "idlelib/idle_test/x.py", "a/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "z.py").write_bytes(b"# caf\xe9")
    texts = LibraryTexts(tmp_path)
    assert [document.text for document in texts] == ["a/c.py", "b.py"]
    assert texts.facts["files not UTF-8"] == 1
    with pytest.raises(DataError, match="holds no source of the standard library"):
        LibraryTexts(tmp_path / "idlelib")


def test_texts_lines_and_tables_of_one_content_are_one_corpus(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    for number, text in enumerate(TEXTS):
        folder = tmp_path / f"part{number % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(text)
    lines(tmp_path / "some.jsonl", TEXTS, "body")
    parquet.write_table(pyarrow.table({"body": TEXTS, "n": list(range(60))}), tmp_path / "some.parquet", row_group_size=7)
    cache = tmp_path / "cache"
    texts = opened(cache, tmp_path / "**" / "*.txt")
    tables = [opened(cache, tmp_path / name, text="body") for name in ("some.jsonl", "some.parquet")]
    assert read(texts, "validation") == sorted(HELD_OUT)
    assert read(texts, "training") == sorted(set(TEXTS) - set(HELD_OUT))
    assert [read(each, "training") for each in tables] == [read(texts, "training")] * 2
    assert tables[0].fingerprint == tables[1].fingerprint
    both = opened(cache, tmp_path / "*.jsonl", tmp_path / "some.jsonl", text="body")
    assert both.facts()["files"] == 1, "a file that two patterns match is read once"


def test_a_data_set_of_the_hub_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    folder = tmp_path / "set"
    folder.mkdir()
    lines(folder / "train.jsonl", TEXTS, "body")
    config = {"source": "hf", "name": str(folder), "text": "body", "validation": SHARE}
    data = read_data(config).open(tmp_path / "cache")
    assert isinstance(data, Corpus)
    assert data.fingerprint == opened(tmp_path / "cache", folder / "train.jsonl", text="body").fingerprint
    assert data.facts()["split"] == "train"
    with pytest.raises(DataError, match=r"has no column 'text'; it has 'body'"):
        read_data({**config, "text": "text"}).open(tmp_path / "cache")
    with pytest.raises(DataError, match=r"\[test\]: cannot be loaded: .*test"):
        read_data({**config, "split": "test"}).open(tmp_path / "cache")
    lines(folder / "train.jsonl", [*TEXTS, None], "body")  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"row 60 has a NoneType in the column 'body'"):
        read_data(config).open(tmp_path / "cache")


def test_a_package_that_is_not_installed_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UnsupportedError, match=r"needs datasets .*pip install 'llamazoo\[hf\]'"):
        read_data({"source": "hf", "name": "anything"}).open(tmp_path)


# Splits


def test_a_documents_side_does_not_depend_on_the_others(tmp_path: Path, corpus: Path) -> None:
    whole = opened(tmp_path, corpus)
    part = opened(tmp_path, lines(tmp_path / "part.jsonl", list(reversed(TEXTS[::2]))))
    assert set(read(part, "validation")) == set(HELD_OUT) & set(TEXTS[::2])
    assert set(read(part, "training")).isdisjoint(read(whole, "validation"))


def test_equal_documents_are_on_one_side(tmp_path: Path) -> None:
    data = opened(tmp_path, lines(tmp_path / "twice.jsonl", TEXTS * 3))
    assert not set(read(data, "training")) & set(read(data, "validation"))
    assert len(read(data, "validation")) == 3 * len(HELD_OUT)


def test_reading_stops_where_it_is_told(tmp_path: Path, corpus: Path) -> None:
    found = opened(tmp_path, corpus, max_documents=20)
    assert sorted(read(found, "training") + read(found, "validation")) == sorted(TEXTS[:20])
    size = sum(len(text) for text in TEXTS[:30])
    assert [opened(tmp_path, corpus, max_bytes=limit).facts()["training bytes"] for limit in (size, size + 1)] == [
        sum(len(text) for text in TEXTS[:30] if text not in HELD_OUT)
    ] * 2


def test_empty_documents_are_left_out_and_counted(tmp_path: Path, corpus: Path) -> None:
    data = opened(tmp_path, lines(tmp_path / "gaps.jsonl", ["", *TEXTS, "", ""]))
    assert data.facts()["empty documents"] == 3
    assert data.fingerprint == opened(tmp_path, corpus).fingerprint


def test_a_fingerprint_is_of_content_and_not_of_places(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    first = opened(tmp_path / "a", corpus)
    moved = opened(tmp_path / "b", corpus.rename(tmp_path / "elsewhere" / "named otherwise.jsonl"))
    assert moved.fingerprint == first.fingerprint == moved.facts()["fingerprint"]
    others = [opened(tmp_path / "b", lines(corpus, TEXTS[:-1])), opened(tmp_path / "b", moved_path(tmp_path), validation=0.4)]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 3


def moved_path(folder: Path) -> Path:
    return folder / "elsewhere" / "named otherwise.jsonl"


def test_every_byte_but_each_documents_first_is_a_target_once_an_epoch(tmp_path: Path, corpus: Path) -> None:
    data = opened(tmp_path, corpus)
    for documents, examples in (("training", data.training(32, 4)), ("validation", data.validation(32))):
        texts = read(data, documents)
        size = sum(map(len, texts))
        targets = torch.cat([examples[i].targets for i in range(-(-size // 32))])[:size]
        expected = sorted(byte for text in texts for byte in text.encode()[1:])
        assert sorted(targets[targets != IGNORED].tolist()) == expected


# What is refused


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a.jsonl:2: is no JSON: Expecting value"),
        ("a.jsonl", '{"text": "x"}\n\n', r"a.jsonl:2: is no JSON"),
        ("a.jsonl", '["text"]\n', r"a.jsonl:1: holds a list, not an object with the field 'text'"),
        ("a.jsonl", '{"text": "x"}\n{"txt": "x", "id": 3}\n', r"a.jsonl:2: has no field 'text'; it has 'txt', 'id'"),
        ("a.jsonl", '{"text": 3}\n', r"a.jsonl:1: the field 'text' holds a int, not a text"),
        ("a.jsonl", b'{"text": "\xff"}\n', r"a.jsonl:1: is not UTF-8: invalid start byte at byte 10"),
        ("a.jsonl", '{"text": "\\ud800"}\n', r"a.jsonl:1: is not Unicode: surrogates not allowed at character 0"),
        ("a.jsonl", "[" * 100_000, r"a.jsonl:1: is no JSON"),
        ("a.jsonl", "", r"the data set is empty"),
        ("a.jsonl", '{"text": ""}\n', r"the data set is empty"),
        ("a.txt", "all in one", r"the data set is a single document, .* a \.txt file is one document: split it into several files, or"),
        (
            "a.jsonl",
            '{"text": "x"}\n' * 3,
            r"no document is left for (training|validation): .* \(each \.txt file is one\), or another",
        ),
        ("a.txt", b"caf\xe9", r"a.txt: is not UTF-8: unexpected end of data at byte 3"),
        ("a.csv", "text\n", r"a.csv: is of an unknown sort; known: .txt, .jsonl, .parquet"),
        ("a.parquet", "PAR1 no table PAR1", r"a.parquet: cannot be read as a parquet file"),
        ("a.parquet", "", r"a.parquet: cannot be read as a parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, content: str | bytes, wrong: str) -> None:
    with pytest.raises(DataError, match=wrong):
        opened(tmp_path / "cache", written(tmp_path / name, content))
    assert not any((tmp_path / "cache").glob("tokens/*")), "nothing is left of it"


def test_a_table_without_the_texts_is_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"body": ["a", None], "n": [1, 2]}), tmp_path / "t.parquet")
    for field, wrong in (
        ("text", "has no column 'text'; it has 'body', 'n'"),
        ("n", "the column 'n' holds int64, not texts"),
        ("body", "row 2 has nothing in the column 'body'"),
    ):
        with pytest.raises(DataError, match=rf"t\.parquet: {wrong}"):
            opened(tmp_path / "cache", tmp_path / "t.parquet", text=field)


def test_documents_of_one_token_have_nothing_to_predict(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing to predict in training: none of its documents has a second token"):
        opened(tmp_path, lines(tmp_path / "one.jsonl", [chr(97 + i) for i in range(26)]))


@pytest.mark.parametrize("pattern", ["nothing/*.txt", "missing.txt", "."])
def test_a_pattern_without_files_is_refused(tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no file is there"):
        opened(tmp_path, pattern)


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"source": "stdlb"}, "source: no source 'stdlb'; did you mean 'stdlib'"),
        ({"source": ["stdlib"]}, "source: no source "),
        ({}, "source: is required; known: stdlib, files, hf, associative_recall"),
        (["stdlib"], "a data set is a map with its `source`, not a list"),
        ({"source": "files"}, "paths: is required"),
        ({"source": "files", "paths": []}, "paths: list should have at least 1 item"),
        ({"source": "stdlib", "tokeniser": "bytes"}, "tokeniser: no such field; did you mean 'tokenizer'"),
        ({"source": "stdlib", "tokenizer": 5}, "^tokenizer: input should be a valid string, found 5$"),
        ({"source": "stdlib", "tokenizer": {"sentencepiece": {"vocab_size": "x"}}}, "^tokenizer.sentencepiece.vocab_size: input should be"),
        ({"source": "stdlib", "validation": 1}, "validation: input should be less than 1, found 1"),
        ({"source": "stdlib", "validation": 0}, "validation: input should be greater than 0, found 0"),
        ({"source": "stdlib", "max_documents": True}, "max_documents: input should be a valid integer, found True"),
    ],
)
def test_a_description_that_cannot_be_is_refused_with_its_path(value: object, wrong: str) -> None:
    with pytest.raises(SpecError, match=wrong):
        read_data(value)


def test_a_data_set_is_a_field_of_a_larger_file() -> None:
    class File(BaseModel):
        model_config = ConfigDict(strict=True)
        data: DataConfig

    file = File.model_validate({"data": {"source": "files", "paths": ["x"]}})
    assert file.data.source == "files"
    assert File.model_validate_json(file.model_dump_json()) == file
    assert set(File.model_json_schema()["properties"]["data"]["discriminator"]["mapping"]) == set(SOURCES)
    with pytest.raises(ValidationError) as caught:
        File.model_validate({"data": {"source": "stdlib", "tokeniser": "bytes"}})
    assert str(explain(caught.value, File)).startswith("data.tokeniser: no such field; did you mean 'tokenizer'")


def test_a_request_that_cannot_be_is_refused(tmp_path: Path, corpus: Path) -> None:
    data = opened(tmp_path, corpus)
    with pytest.raises(DataError, match="an example of 0 tokens"):
        data.validation(0)
    with pytest.raises(DataError, match="the seed -1 is not from 0"):
        data.training(8, -1)


def test_the_cache_is_where_the_environment_says(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("LLAMAZOO_CACHE", raising=False)
    config = read_data({"source": "files", "paths": [str(corpus)], "validation": SHARE})
    config.open()
    assert len(os.listdir(tmp_path / "xdg" / "llamazoo" / "tokens")) == 1
    monkeypatch.setenv("LLAMAZOO_CACHE", str(tmp_path / "own"))
    config.open()
    assert len(os.listdir(tmp_path / "own" / "tokens")) == 1
    monkeypatch.setenv("LLAMAZOO_CACHE", str(corpus))
    with pytest.raises(DataError, match=r"no tokens can be kept there: .*set LLAMAZOO_CACHE"):
        config.open()
