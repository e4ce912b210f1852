"""Which files a corpus is read from, and how much of them: odd names, links, marks, limits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

import llamazoo
from llamazoo.data.config import read_data
from llamazoo.data.corpus import Corpus
from llamazoo.data.texts import files
from llamazoo.data.texts.document import Document, first
from llamazoo.data.texts.files import FileTexts
from llamazoo.errors import DataError, SpecError

TEXTS = [f"document {i}: " + "so it goes, " * (i % 7) for i in range(40)]


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def texts(patterns: list[str], folder: Path, field: str = "text") -> list[str]:
    return [document.text for document in FileTexts(patterns, field, folder)]


def test_a_folders_name_is_no_pattern(tmp_path: Path) -> None:
    for name in ("run[1]", "run1"):
        for number, text in enumerate(TEXTS):
            written(tmp_path / name / "corpus" / f"{number}.txt", f"{name} {text}")
    config = {"source": "files", "paths": ["corpus/*.txt"], "validation": 0.3}
    data = llamazoo.open_data(config, tmp_path / "cache", folder=tmp_path / "run[1]")
    assert isinstance(data, Corpus)
    assert bytes(data.store.documents("training")[0].tolist()).startswith(b"run[1] ")
    written(tmp_path / "run[1]" / "a[1].txt", "bracketed")
    assert texts(["a[1].txt"], tmp_path / "run[1]") == ["bracketed"], "a file of that very name comes before the pattern"


def test_a_tilde_is_a_home_only_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "h[1]"
    written(tmp_path / "~old.txt", "old")
    written(home / "mine.txt", "mine")
    monkeypatch.setenv("HOME", str(home))
    assert texts(["~old.txt", "~/*.txt"], tmp_path) == ["old", "mine"]
    monkeypatch.setenv("LLAMAZOO_CACHE", "~nobody-is-called-so/cache")
    monkeypatch.chdir(tmp_path)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    written(tmp_path / "corpus.jsonl", lines)
    read_data({"source": "files", "paths": ["corpus.jsonl"], "validation": 0.3}).open()
    assert (tmp_path / "~nobody-is-called-so" / "cache" / "tokens").is_dir()


def test_a_pattern_takes_no_name_that_begins_with_a_dot_unless_it_says_so(tmp_path: Path) -> None:
    for name in ("seen.txt", ".hidden.txt", ".folder/inside.txt"):
        written(tmp_path / name, name)
    assert texts(["**/*.txt"], tmp_path) == ["seen.txt"]
    assert texts([".*.txt", ".folder/*.txt"], tmp_path) == [".hidden.txt", ".folder/inside.txt"]


def test_a_file_that_is_reached_in_several_ways_is_read_once(tmp_path: Path) -> None:
    written(tmp_path / "a" / "x.txt", "once")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a" / "x.txt")
    (tmp_path / "folder").symlink_to(tmp_path / "a")
    assert texts(["a/x.txt", "link.txt", "a/../a/x.txt", "folder/*.txt", str(tmp_path / "a" / "*.txt")], tmp_path) == ["once"]


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be looked for: File name too long"):
        FileTexts(["x" * 5000], "text", tmp_path)


def test_a_byte_order_mark_before_the_first_line_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + '{"text": "\ufeffkept"}\n{"text": "b"}\n'.encode())
    assert texts(["marked.jsonl"], tmp_path) == ["\ufeffkept", "b"]


# How much is read


def test_nothing_after_the_last_document_is_looked_at(tmp_path: Path) -> None:
    written(tmp_path / "broken.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:30]) + "{broken\n")
    read = FileTexts(["broken.jsonl"], "text", tmp_path)
    assert [document.text for document in first(read, 30, None)] == TEXTS[:30]
    with pytest.raises(DataError, match=r"broken\.jsonl:31: is no JSON"):
        list(first(read, 31, None))


def test_a_limit_below_the_first_text_is_named() -> None:
    documents = [Document("a:1", ""), Document("a:2", "four"), Document("a:3", "x")]
    with pytest.raises(DataError, match=r"^a:2: has 4 bytes, `max_bytes` is 3, and no document is cut: nothing is left$"):
        list(first(documents, None, 3))
    assert [document.text for document in first(documents, None, 4)] == ["", "four"]


# Tables


def test_a_document_of_a_table_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pyarrow.table({"text": ["a", "é" * 50, "b" * 101]}), tmp_path / "t.parquet")
    monkeypatch.setattr(files, "MAX_DOCUMENT", 100)
    read = iter(FileTexts(["t.parquet"], "text", tmp_path))
    assert [next(read).text for _ in range(2)] == ["a", "é" * 50]
    with pytest.raises(DataError, match=r"t\.parquet: row 3 has 101 bytes in the column 'text', and a document at most 100"):
        next(read)


@pytest.fixture
def pool() -> Iterator[Any]:
    """What the file is written from; pyarrow's usual pool is back afterwards."""
    usual = pyarrow.default_memory_pool()
    yield usual
    pyarrow.set_memory_pool(usual)


@pytest.mark.parametrize("sort", [pyarrow.string(), pyarrow.large_string()], ids=str)
def test_a_text_that_is_written_once_for_many_rows_is_not_held_many_times(
    tmp_path: Path, sort: Any, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, rows = 100_000, 400
    path = tmp_path / "t.parquet"
    table = pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays([0] * rows, pyarrow.array(["x" * size])).cast(sort)})
    parquet.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 10_000
    del table
    pool = pyarrow.proxy_memory_pool(pool)
    pyarrow.set_memory_pool(pool)
    monkeypatch.setattr(files, "BATCH", 2_000_000)
    assert sum(len(text) for text in texts(["t.parquet"], tmp_path)) == size * rows
    assert size < pool.max_memory() < 8_000_000, "and all together are 40,000,000"


def test_large_and_small_groups_of_rows_give_the_same_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "t.parquet", row_group_size=17)
    for limit in (1, 3000, 64 << 20):
        monkeypatch.setattr(files, "BATCH", limit)
        assert texts(["t.parquet"], tmp_path) == TEXTS


def test_a_dot_in_a_columns_name_is_no_path(tmp_path: Path) -> None:
    both = pyarrow.table({"a": [{"b": "within"}] * 3, "a.b": ["x", "y", "z"]})
    parquet.write_table(both, tmp_path / "both.parquet")
    assert texts(["both.parquet"], tmp_path, "a.b") == ["x", "y", "z"]
    parquet.write_table(both.select(["a"]), tmp_path / "struct.parquet")
    with pytest.raises(DataError, match=r"has no column 'a\.b'; it has 'a'"):
        texts(["struct.parquet"], tmp_path, "a.b")
    twice = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["text", "text"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="has 2 columns 'text'"):
        texts(["twice.parquet"], tmp_path)


# The hub


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `datasets` was asked for."""
    import datasets

    found: list[str] = []

    def load(name: str, config: str | None, **options: Any) -> Any:
        found.append(name)
        return datasets.Dataset.from_dict({"text": TEXTS})

    monkeypatch.setattr(datasets, "load_dataset", load)
    return found


def test_a_folder_that_is_named_as_a_data_set_counts_from_the_files_folder(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "my_set").mkdir(parents=True)
    (tmp_path / "elsewhere" / "taken").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("my_set", "./my_set", "someone/set"):
        llamazoo.open_data({"source": "hf", "name": name, "validation": 0.3}, tmp_path / "cache", folder=tmp_path / "here")
    assert asked == [str(tmp_path / "here" / "my_set")] * 2 + ["someone/set"]
    for name, wrong in (("./taken", "no folder is at .*here/taken"), ("taken", "`datasets` would read .*elsewhere/taken by that name")):
        with pytest.raises(DataError, match=wrong):
            llamazoo.open_data({"source": "hf", "name": name}, tmp_path / "cache", folder=tmp_path / "here")


# Tokenizers


def test_a_vocabulary_that_no_model_has_is_refused_with_its_path() -> None:
    with pytest.raises(SpecError, match=r"tokenizer\.sentencepiece\.vocab_size: input should be less than or equal to 4194304"):
        read_data({"source": "stdlib", "tokenizer": {"sentencepiece": {"vocab_size": 2**31}}})


def test_marks_that_a_trained_tokenizer_reads_as_spaces_are_counted(tmp_path: Path) -> None:
    marked = [text + "\u2581 end \u2581" for text in TEXTS]
    written(tmp_path / "m.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in marked))
    config = {"source": "files", "paths": ["m.jsonl"], "validation": 0.3, "tokenizer": {"sentencepiece": {"vocab_size": 290}}}
    data = llamazoo.open_data(config, tmp_path / "cache", folder=tmp_path)
    assert isinstance(data, Corpus)
    assert data.facts()["marks U+2581 read as spaces"] == 2 * len(TEXTS)
    assert data.tokenizer is not None
    assert data.tokenizer.decode(data.tokenizer.encode(marked[0])) == marked[0].replace("\u2581", " ")
    plain = llamazoo.open_data({**config, "tokenizer": "bytes"}, tmp_path / "cache", folder=tmp_path)
    assert "marks U+2581 read as spaces" not in plain.facts()
