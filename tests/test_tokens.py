"""Tokenizers of a corpus, and tokens on disk."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

import llamazoo
from llamazoo.data.config import read_data
from llamazoo.data.corpus import Corpus
from llamazoo.data.drafts import draft_of, remove_left
from llamazoo.data.store import Store, made_store, write_header, write_store
from llamazoo.data.texts.document import held_out
from llamazoo.data.tokenizing import ByteTokenizer, SentencePieceTraining, tokenizer_digest, train_sentencepiece
from llamazoo.errors import DataError, TokenizerError

SENTENCE = "the quick brown fox jumps over a lazy dog while seven wizards (quietly) box = 12 + 30 jugs of café"
WORDS = SENTENCE.split()
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 30)) + f"\n\n\tline  {i}\r\n" for i in range(80)]
SMALL = SentencePieceTraining(vocab_size=320)


def opened(folder: Path, texts: list[str], **options: Any) -> Corpus:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = read_data({"source": "files", "paths": [str(path)], "validation": 0.2, **options}).open(folder / "cache")
    assert isinstance(found, Corpus)
    return found


# Tokenizers


@pytest.mark.parametrize("text", ["", "plain", "naïve ☃ 🦙\n\t\0 \x7f", "".join(map(chr, range(0x250)))])
def test_bytes_are_their_own_ids_here_and_in_the_tokenizer_that_is_saved(tmp_path: Path, text: str) -> None:
    tokenizer = ByteTokenizer()
    tokenizer.save(tmp_path)
    saved = llamazoo.load_tokenizer(tmp_path)
    assert tokenizer.encode(text) == list(text.encode()) == saved.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text == saved.decode(saved.encode(text))
    assert saved.vocab_size == tokenizer.vocab_size == 256
    assert saved.decode([255]) == tokenizer.decode([255]) == "\ufffd"


@pytest.mark.parametrize("model", ["bpe", "unigram"])
def test_a_trained_tokenizer_follows_from_its_texts_and_loses_nothing(tmp_path: Path, model: Any) -> None:
    options = SentencePieceTraining(vocab_size=320, model=model)
    for name in ("a.model", "b.model"):
        train_sentencepiece(TEXTS, options, tmp_path / name)
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()
    tokenizer = llamazoo.load_tokenizer(tmp_path / "a.model")
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids) == (320, None, ())
    for text in (*TEXTS[:3], "  never   seen 🦙\n\n    indented\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0].encode()) / 2


def test_a_tokenizer_is_trained_on_nothing_of_the_validation_side(tmp_path: Path) -> None:
    held = [text for text in TEXTS if held_out(text.encode(), 0.2)]
    seen = [text for text in TEXTS if text not in held]
    others = [text for i in range(200) if held_out((text := f"unseen words entirely {i} " * 9).encode(), 0.2)]
    assert held
    assert others
    trained = {"sentencepiece": {"vocab_size": 320}}
    first = opened(tmp_path, TEXTS, tokenizer=trained)
    second = opened(tmp_path, [*others, *seen], tokenizer=trained)
    assert first.fingerprint != second.fingerprint
    assert first.tokenizer.encode("unseen words") == second.tokenizer.encode("unseen words")
    assert (first.store.folder / "tokenizer.model").read_bytes() == (second.store.folder / "tokenizer.model").read_bytes()
    first.tokenizer.save(tmp_path)
    assert llamazoo.load_tokenizer(tmp_path).encode(TEXTS[0]) == first.tokenizer.encode(TEXTS[0])


def test_training_reads_no_more_than_it_is_told(tmp_path: Path) -> None:
    size = sum(len(text.encode()) for text in TEXTS[:50])
    limited = SentencePieceTraining(vocab_size=320, max_bytes=size)
    train_sentencepiece([*TEXTS[:50], "entirely other words " * 500], limited, tmp_path / "limited")
    train_sentencepiece(TEXTS[:50], limited, tmp_path / "short")
    assert (tmp_path / "limited").read_bytes() == (tmp_path / "short").read_bytes()


@pytest.mark.parametrize(("vocab_size", "wrong"), [(100_000, "of 100000 ids .*Vocabulary size"), (200, "of 200 ids .*Vocabulary size")])
def test_a_vocabulary_that_the_texts_cannot_fill_is_refused(tmp_path: Path, vocab_size: int, wrong: str) -> None:
    with pytest.raises(DataError, match=wrong):
        opened(tmp_path, TEXTS, tokenizer={"sentencepiece": {"vocab_size": vocab_size}})
    assert not list((tmp_path / "cache" / "tokens").iterdir())


def test_a_tokenizers_own_beginning_stands_before_each_document(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(tmp_path / "begun"),
        vocab_size=310,
        byte_fallback=True,
        bos_id=1,
        minloglevel=2,
    )
    data = opened(tmp_path, TEXTS, tokenizer=str(tmp_path / "begun.model"))
    documents = data.store.documents("training")
    assert {int(documents[i][0]) for i in range(len(documents))} == {1}
    assert documents[0].tolist() == data.tokenizer.encode(next(t for t in TEXTS if not held_out(t.encode(), 0.2)))
    learned = sum(example.learned for example in data.validation(16))
    sums = data.store.header.splits["validation"]
    assert learned == sums.tokens - sums.documents
    assert data.facts()["tokenizer"] == "from a file"


def test_a_tokenizers_hash_is_of_its_file_and_not_of_its_place(tmp_path: Path) -> None:
    for name, vocab_size in (("a", 320), ("b", 320), ("c", 330)):
        (tmp_path / name).mkdir()
        train_sentencepiece(TEXTS, SentencePieceTraining(vocab_size=vocab_size), tmp_path / name / "tokenizer.model")
    a, b, c = (tokenizer_digest(llamazoo.load_tokenizer(tmp_path / name)) for name in "abc")
    assert a == b != c
    data = opened(tmp_path, TEXTS, tokenizer=str(tmp_path / "a"))
    (tmp_path / "a" / "tokenizer.model").write_bytes((tmp_path / "c" / "tokenizer.model").read_bytes())
    assert opened(tmp_path, TEXTS, tokenizer=str(tmp_path / "b")).store.folder == data.store.folder
    assert opened(tmp_path, TEXTS, tokenizer=str(tmp_path / "a")).store.folder != data.store.folder


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="there is no such file"):
        opened(tmp_path, TEXTS, tokenizer=str(tmp_path / "none"))


# Stores


def some(folder: Path) -> None:
    documents = [("training", np.array([1, 70_000 - 1, 3]), 9), ("validation", np.array([5, 6]), 4), ("training", np.array([9]), 1)]
    write_store(folder, documents, 70_000, lambda: {"source": "test"})  # type: ignore[arg-type]


def test_a_store_gives_back_what_was_written(tmp_path: Path) -> None:
    store = made_store(tmp_path / "a", some)
    training = store.documents("training")
    assert [training[i].tolist() for i in range(len(training))] == [[1, 69_999, 3], [9]]
    assert training[0].dtype == np.uint32
    assert training.lengths.tolist() == [3, 1]
    assert store.header.splits["training"].model_dump() == {"documents": 2, "tokens": 4, "bytes": 10}
    assert isinstance(training.ids, np.memmap)
    assert len(pickle.dumps(training)) < 2000, "another process maps the file itself"
    assert pickle.loads(pickle.dumps(training))[0].tolist() == [1, 69_999, 3]


def test_small_vocabularies_take_two_bytes_a_token(tmp_path: Path) -> None:
    data = opened(tmp_path, TEXTS)
    size = (data.store.folder / "training.ids").stat().st_size
    assert size == 2 * data.store.header.splits["training"].tokens


def test_a_store_is_made_once(tmp_path: Path) -> None:
    first = made_store(tmp_path / "a", some)

    def never(folder: Path) -> None:
        raise AssertionError("it is there")

    assert made_store(tmp_path / "a", never).fingerprint == first.fingerprint


def test_of_two_processes_that_make_a_store_at_once_the_later_throws_its_own_away(tmp_path: Path) -> None:
    def overtaken(folder: Path) -> None:
        some(folder)
        made_store(tmp_path / "a", some)
        (tmp_path / "a" / "mark").touch()

    store = made_store(tmp_path / "a", overtaken)
    assert (store.folder / "mark").exists(), "the first one stays"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_store_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    def stopped(folder: Path) -> None:
        some(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_store(tmp_path / "a", stopped)
    assert not list(tmp_path.iterdir())

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="tokens cannot be written there: No space left"):
        made_store(tmp_path / "a", full)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["training.ids", "training.offsets", "validation.ids", "validation.offsets"])
@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "removed"])
def test_a_damaged_store_is_refused_saying_what_to_remove(tmp_path: Path, name: str, damage: str) -> None:
    path = made_store(tmp_path / "a", some).folder / name
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-1], "longer": data + b"\0", "flipped": bytes([data[0] ^ 1]) + data[1:]}[damage])
    with pytest.raises(DataError, match=rf"/a: these stored tokens are damaged: .*{name}.*remove this folder"):
        Store(tmp_path / "a")


@pytest.mark.parametrize("header", [b"", b"{}", b"\xff", b'{"version": 2}', None])
def test_a_store_with_a_damaged_header_is_refused(tmp_path: Path, header: bytes | None) -> None:
    path = made_store(tmp_path / "a", some).folder / "store.json"
    path.unlink() if header is None else path.write_bytes(header)
    with pytest.raises(DataError, match=r"/a: these stored tokens are damaged: .*store\.json.*remove this folder"):
        Store(tmp_path / "a")


def test_a_header_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    path = made_store(tmp_path / "a", some).folder / "store.json"
    (tmp_path / "victim").write_bytes(b"")
    header = json.loads(path.read_text())
    header["files"]["../victim"] = header["files"].pop("training.ids")
    path.write_text(json.dumps(header))
    summed = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name("store.sha256").write_text(f"{summed}  store.json\n")
    with pytest.raises(DataError, match=r"store\.json is not as it was written \(1 faults\)"):
        Store(tmp_path / "a")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"vocab_size": 70000', '"vocab_size": 71000'),
        ('"<u4"', '"<u2"'),
        ('"source": "test"', '"source": "best"'),
        ('"bytes": 10', '"bytes": 11'),
    ],
)
def test_a_header_that_was_edited_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = made_store(tmp_path / "a", some).folder / "store.json"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=r"/a: .*store\.json is not as it was written: its SHA-256 is not that of store\.sha256"):
        Store(tmp_path / "a")


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"vocab_size": 69_999}, r"training\.ids has the id 69999, and store\.json says that there are 69999"),
        ({"dtype": "<u2"}, r"training\.ids has 16 bytes; store\.json says 4 numbers of 2 bytes"),
        ({"documents": 3}, r"training\.offsets has 24 bytes; store\.json says 4 numbers of 8 bytes"),
        ({"tokens": 3}, r"training\.ids has 16 bytes; store\.json says 3 numbers of 4 bytes"),
    ],
)
def test_a_store_that_says_what_its_files_do_not_hold_is_refused(tmp_path: Path, changed: dict[str, Any], wrong: str) -> None:
    store = made_store(tmp_path / "a", some)
    sums = store.header.splits["training"]
    split = sums.model_copy(update={key: value for key, value in changed.items() if key in ("documents", "tokens")})
    told = {key: value for key, value in changed.items() if key in ("vocab_size", "dtype")}
    write_header(store.folder, store.header.model_copy(update={**told, "splits": {**store.header.splits, "training": split}}))
    with pytest.raises(DataError, match=wrong):
        Store(tmp_path / "a")


@pytest.mark.parametrize("offsets", [[0, 5, 4], [1, 3, 4], [0, 3, 3], [0, 0, 4]])
def test_documents_that_do_not_follow_each_other_are_refused(tmp_path: Path, offsets: list[int]) -> None:
    store = made_store(tmp_path / "a", some)
    data = np.array(offsets, dtype="<i8").tobytes()
    (store.folder / "training.offsets").write_bytes(data)
    sums = store.header.files["training.offsets"].model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    write_header(store.folder, store.header.model_copy(update={"files": {**store.header.files, "training.offsets": sums}}))
    with pytest.raises(DataError, match=r"training\.offsets does not rise from 0 to 4"):
        Store(tmp_path / "a")


# Drafts


KILLED = """
import os, signal, sys
from pathlib import Path
from llamazoo.data.drafts import draft_of
with draft_of(Path(sys.argv[1])) as draft:
    (draft / "training.ids").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_when_the_store_is_made(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / ".b-12345678").mkdir()
    with draft_of(tmp_path / "a") as living:
        made_store(tmp_path / "a", some)
        assert living.is_dir(), "a living process's draft stays"
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b-12345678", "a"], "another store's stays"


@pytest.mark.parametrize("machine", ["another machine", None], ids=["named", "not yet named"])
def test_the_draft_of_another_machine_is_removed_when_nothing_changed_for_a_day(tmp_path: Path, machine: str | None) -> None:
    draft = tmp_path / ".a-12345678"
    (draft / "made").mkdir(parents=True)
    if machine is not None:
        (draft / "held").write_text(machine)
    remove_left(tmp_path / "a")
    assert draft.is_dir(), "a lock of another machine may not be seen here"
    for path in (*draft.iterdir(), draft):
        os.utime(path, (time.time() - 90_000,) * 2)
    remove_left(tmp_path / "a")
    assert not draft.exists()


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 2500])
def test_a_cache_whose_name_is_too_long_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no tokens can be kept there: File name too long; set LLAMAZOO_CACHE"):
        made_store(tmp_path / name / "a", some)


def test_a_cache_that_may_not_be_searched_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refused)  # no folder is closed to root
    with pytest.raises(DataError, match="no tokens can be kept there: Permission denied; set LLAMAZOO_CACHE"):
        made_store(tmp_path / "a", some)
