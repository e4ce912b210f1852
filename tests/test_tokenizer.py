"""Text to ids and back, whole and as it grows, for tokenizers trained here; and files that are none."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

import llamazoo
from llamazoo.errors import InputError, PathEscapeError, TokenizerError
from llamazoo.generation.decoding import Decoding
from llamazoo.generation.json_tokenizer import JsonTokenizer
from llamazoo.generation.tokenizer import SentencePieceTokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "A llama is not an alpaca, and a zoo is not a farm.",
    "Once upon a time there was a small model that could add two numbers.",
    "She sells sea shells by the sea shore, and he sells them again.",
]
TEXTS = [
    "",
    "a",
    "The lazy llama jumps.",
    "  two  spaces, and a tab\tand a\nline ",
    "na\u00efve caf\u00e9, \u00fcber",
    "\u6f22\u5b57\u3068\u4eee\u540d",
    "\U0001f999 and \U0001f468\u200d\U0001f469\u200d\U0001f467, \U0001f1eb\U0001f1f7",
    "e\u0301 is two code points; \u00e9 is one",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645",
    "x" * 300,
]
PIECES, BPE, FALLBACK = "sentencepiece", "byte-level BPE", "byte fallback"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each sort of tokenizer, each with <s> and </s>."""
    root = tmp_path_factory.mktemp("tokenizers")
    made = {name: root / name.replace(" ", "_") for name in (PIECES, BPE, FALLBACK)}
    for folder in made.values():
        folder.mkdir()
    with open(made[PIECES] / "tokenizer.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 4),
            model_writer=file,
            vocab_size=340,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            character_coverage=1.0,
            minloglevel=2,
        )
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        CORPUS * 4, trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    _write(bpe, made[BPE], {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}})
    letters = sorted({c for line in CORPUS for c in line.replace(" ", "\u2581")} | {"\u2581"})
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    fallback = tokenizers.Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    fallback.add_special_tokens(["<unk>", "<s>", "</s>"])
    fallback.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    fallback.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    _write(fallback, made[FALLBACK], {"bos_token": {"content": "<s>"}, "eos_token": "</s>"})
    return made


def _write(tokenizer: tokenizers.Tokenizer, folder: Path, config: dict[str, Any]) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(params=[PIECES, BPE, FALLBACK])
def sort(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(sort: str, folders: dict[str, Path]) -> llamazoo.Tokenizer:
    return llamazoo.load_tokenizer(folders[sort])


def bare(tokenizer: llamazoo.Tokenizer, text: str) -> list[int]:
    """The ids of a text without what stands before it."""
    ids = tokenizer.encode(text)
    return ids[1:] if ids[:1] == [tokenizer.bos_id] else ids


# There and back


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:30])
def test_a_text_comes_back_from_its_ids(text: str, tokenizer: llamazoo.Tokenizer) -> None:
    ids = bare(tokenizer, text)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode(ids) == text


def test_what_the_corpus_never_showed_is_spelt_in_bytes(folders: dict[str, Path]) -> None:
    for sort in (PIECES, FALLBACK):
        tokenizer = llamazoo.load_tokenizer(folders[sort])
        inner = tokenizer.processor.id_to_piece if sort == PIECES else tokenizer.tokenizer.id_to_token
        pieces = [inner(i) for i in bare(tokenizer, "\U0001f999")]
        assert pieces[-4:] == ["<0xF0>", "<0x9F>", "<0xA6>", "<0x99>"]


def test_the_beginning_and_the_end_of_text_have_their_ids(folders: dict[str, Path]) -> None:
    for sort, bos, eos in ((PIECES, 1, 2), (BPE, 0, 1), (FALLBACK, 1, 2)):
        found = llamazoo.load_tokenizer(folders[sort])
        assert (found.bos_id, found.eos_ids) == (bos, (eos,))
        assert (found.encode("a")[0] == bos) == (sort != FALLBACK), "a tokenizer.json says itself what it puts before a text"
        assert eos not in found.encode("a")


def test_a_sentencepiece_model_needs_no_beginning_and_no_end(tmp_path: Path) -> None:
    with open(tmp_path / "tokenizer.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=file, vocab_size=60, model_type="bpe", bos_id=-1, eos_id=-1, minloglevel=2
        )
    found = llamazoo.load_tokenizer(tmp_path)
    assert (found.bos_id, found.eos_ids) == (None, ())
    assert found.decode(found.encode("The lazy fox")) == "The lazy fox"


def test_a_saved_tokenizer_loads_as_it_was(sort: str, tokenizer: llamazoo.Tokenizer, folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = llamazoo.load_tokenizer(tmp_path)
    assert type(again) is type(tokenizer)
    assert (again.vocab_size, again.bos_id, again.eos_ids) == (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids)
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    name = "tokenizer.model" if sort == PIECES else "tokenizer.json"
    assert (tmp_path / name).read_bytes() == (folders[sort] / name).read_bytes()


def test_a_tokenizer_travels_with_its_model(tmp_path: Path, tokenizer: llamazoo.Tokenizer) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={"vocab_size": 400, "n_layers": 1})
    llamazoo.save_model(model, tmp_path / "model", tokenizer=tokenizer)
    assert llamazoo.load_tokenizer(tmp_path / "model").encode("a llama") == tokenizer.encode("a llama")


def test_a_file_may_be_named_itself_and_a_json_goes_before_a_model(folders: dict[str, Path], tmp_path: Path) -> None:
    assert isinstance(llamazoo.load_tokenizer(folders[PIECES] / "tokenizer.model"), SentencePieceTokenizer)
    assert isinstance(llamazoo.load_tokenizer(folders[BPE] / "tokenizer.json"), JsonTokenizer)
    for sort in (PIECES, BPE):
        llamazoo.load_tokenizer(folders[sort]).save(tmp_path)
    assert isinstance(llamazoo.load_tokenizer(tmp_path), JsonTokenizer)


def test_special_tokens_are_shown_and_truncation_is_not_kept(folders: dict[str, Path], tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer.from_file(str(folders[BPE] / "tokenizer.json"))
    inner.enable_truncation(4)
    inner.enable_padding(length=64)
    inner.save(str(tmp_path / "tokenizer.json"))
    found, reference = llamazoo.load_tokenizer(tmp_path), llamazoo.load_tokenizer(folders[BPE])
    assert found.encode(TEXTS[-1]) == reference.encode(TEXTS[-1])
    assert (found.bos_id, found.eos_ids) == (None, ())
    assert found.decode([0, *bare(reference, "dog"), 1]) == "<s>dog</s>"


# As it grows


def grown(tokenizer: llamazoo.Tokenizer, ids: list[int], before: list[int] | None = None) -> Iterator[str]:
    decoding = Decoding(tokenizer, before or [])
    for i, token in enumerate(ids):
        yield decoding.add(token, last=i == len(ids) - 1)


@pytest.mark.parametrize("text", [text for text in TEXTS if text], ids=lambda text: ascii(text)[:30])
def test_text_decoded_id_by_id_is_the_text(text: str, tokenizer: llamazoo.Tokenizer) -> None:
    pieces = list(grown(tokenizer, bare(tokenizer, text)))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("sort", [PIECES, BPE], indirect=True)
@pytest.mark.parametrize("seed", range(6))
def test_random_ids_decoded_one_by_one_are_what_they_are_at_once(seed: int, sort: str, tokenizer: llamazoo.Tokenizer) -> None:
    chance = random.Random(seed)
    low = 3 if sort == PIECES else 0
    ids = [chance.randrange(low, tokenizer.vocab_size) for _ in range(120)]
    bytes_only = [chance.randrange(low, low + 256) for _ in range(60)]
    for tried in (ids, bytes_only, ids[:40] + bytes_only[:30]):
        assert "".join(grown(tokenizer, tried)) == tokenizer.decode(tried)


@pytest.mark.parametrize("begin", range(3))
def test_a_long_run_of_characters_spelt_in_bytes_arrives_whole(begin: int, tokenizer: llamazoo.Tokenizer) -> None:
    text = "a" * begin + "\u6f22\u5b57\u4eee\u540d" * 8 + "\U0001f999" * 8 + "\u00e9" * 20
    assert "".join(grown(tokenizer, bare(tokenizer, text))) == text


def test_no_part_of_a_character_is_ever_shown(tokenizer: llamazoo.Tokenizer) -> None:
    ids = bare(tokenizer, "\u6f22a\U0001f999")
    shown = [piece for piece in grown(tokenizer, ids) if piece]
    assert "".join(shown) == "\u6f22a\U0001f999"
    assert all(set(piece) <= set("\u6f22a\U0001f999") for piece in shown)


def test_a_character_cut_off_at_the_end_is_shown_as_a_replacement(tokenizer: llamazoo.Tokenizer) -> None:
    ids = bare(tokenizer, "a\U0001f999")[:-1]
    *first, last = grown(tokenizer, ids)
    assert "".join(first) == "a"
    assert last == tokenizer.decode(ids)[1:]
    assert set(last) == {"\ufffd"}


def test_a_continuation_keeps_the_space_that_parts_it_from_the_prompt(tokenizer: llamazoo.Tokenizer) -> None:
    prompt, whole = tokenizer.encode("The lazy"), tokenizer.encode("The lazy dog")
    assert whole[: len(prompt)] == prompt
    assert "".join(grown(tokenizer, whole[len(prompt) :], prompt)) == " dog"


# Files and texts that are none

# The prefix is longer than the second token of a merge, for which the library panics: an error that is no Exception.
PANIC = b'{"model": {"type": "BPE", "continuing_subword_prefix": "##", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.model", b"\x00\xff garbage \x80" * 50, "is no sentencepiece model"),
        ("tokenizer.model", b"{}", "is no sentencepiece model"),
        ("tokenizer.json", b"", "is no tokenizer.json"),
        ("tokenizer.json", b"{}", "is no tokenizer.json"),
        ("tokenizer.json", PANIC, "is no tokenizer.json: slice index"),
        ("tokenizer.json", b"[1, 2", "is no tokenizer.json"),
        ("tokenizer.json", b"\xff\xfe\x00", "is no tokenizer.json"),
        ("tokenizer.json", b"[" * 100_000, "is no tokenizer.json"),
        ("tokenizer.json", b'{"version": "1.0", "model": {"type": "Nonsense"}}', "is no tokenizer.json"),
    ],
    ids=lambda v: ascii(v)[:24],
)
def test_a_file_that_is_no_tokenizer_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        llamazoo.load_tokenizer(tmp_path)


@pytest.mark.parametrize("kept", [10, 500, 2000])
def test_a_cut_off_file_is_refused(kept: int, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folders[BPE] / "tokenizer.json").read_bytes()[:kept])
    with pytest.raises(TokenizerError, match=r"is no tokenizer\.json"):
        llamazoo.load_tokenizer(tmp_path)
    whole = (folders[PIECES] / "tokenizer.model").read_bytes()
    (tmp_path / "cut.model").write_bytes(whole[: len(whole) - kept])
    with pytest.raises(TokenizerError, match="is no sentencepiece model"):
        llamazoo.load_tokenizer(tmp_path / "cut.model")


def test_a_missing_tokenizer_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"nowhere: there is no such file"):
        llamazoo.load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match=r"has no tokenizer: none of tokenizer\.json, tokenizer\.model"):
        llamazoo.load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match=r"gone\.json: there is no such file"):
        llamazoo.load_tokenizer(tmp_path / "gone.json")


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(100_000_000)
        with pytest.raises(TokenizerError, match="has 100000000 bytes; a tokenizer has at most 67108864"):
            llamazoo.load_tokenizer(tmp_path / name)


def test_a_link_out_of_the_folder_is_not_followed(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(folders[BPE] / "tokenizer.json")
    with pytest.raises(PathEscapeError, match="points outside"):
        llamazoo.load_tokenizer(tmp_path)


def test_half_a_surrogate_pair_is_no_text(tokenizer: llamazoo.Tokenizer) -> None:
    for text in ("\ud83e", "a\udd99", "\udd99\ud83e"):
        with pytest.raises(InputError, match=r"the text is not Unicode: surrogates not allowed at [01]"):
            tokenizer.encode(text)


def test_an_id_that_does_not_exist_is_refused(tokenizer: llamazoo.Tokenizer) -> None:
    with pytest.raises(InputError, match="token id -1 is outside the tokenizer's vocabulary"):
        tokenizer.decode([1, -1])


def test_a_sentencepiece_id_beyond_the_vocabulary_is_refused(folders: dict[str, Path]) -> None:
    found = llamazoo.load_tokenizer(folders[PIECES])
    with pytest.raises(InputError, match="token id 340 is outside the tokenizer's vocabulary"):
        found.decode([found.vocab_size])


def test_ids_of_the_model_that_the_tokenizer_does_not_know_are_no_text(folders: dict[str, Path]) -> None:
    found = llamazoo.load_tokenizer(folders[BPE])
    assert found.decode([*bare(found, "dog"), found.vocab_size + 5]) == "dog"


def test_a_tokenizer_larger_than_the_models_vocabulary_is_refused(tokenizer: llamazoo.Tokenizer) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={"vocab_size": tokenizer.vocab_size - 1, "n_layers": 1})
    with pytest.raises(TokenizerError, match=f"the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary only"):
        llamazoo.generate(model, "a", max_new_tokens=1, tokenizer=tokenizer)


def test_generation_goes_from_text_to_text(sort: str, tokenizer: llamazoo.Tokenizer) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={"vocab_size": tokenizer.vocab_size, "n_layers": 1, "init": {"std": 0.5}}).eval()
    made = llamazoo.generate(model, "The lazy", max_new_tokens=24, tokenizer=tokenizer, stop_ids=())
    prompt = tokenizer.encode("The lazy")
    if sort != FALLBACK:  # one byte that fits nowhere makes this decoder give up those before it, which were shown already
        assert made.text == tokenizer.decode(prompt + made.tokens[0])[len(tokenizer.decode(prompt)) :]
    ended = llamazoo.generate(model, "The lazy", max_new_tokens=24, tokenizer=tokenizer, stop_ids=[made.tokens[0][5]])
    assert ended.finish_reason == "stop"


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_prompt_that_ends_within_a_character_is_continued_whole(cut: int, tokenizer: llamazoo.Tokenizer) -> None:
    ids = bare(tokenizer, "\u6f22\u5b57\u4eee\u540d")
    decoding = Decoding(tokenizer, ids[:cut])
    added = "".join(decoding.add(i) for i in ids[cut:]) + decoding.rest()
    assert "\ufffd" not in added
    assert tokenizer.decode(ids).endswith(added)
    assert len(added) >= (len(ids) - cut) // 3


def test_half_a_character_at_the_end_is_told_as_a_replacement(tokenizer: llamazoo.Tokenizer) -> None:
    ids = bare(tokenizer, "a\U0001f999")[:-1]
    decoding = Decoding(tokenizer)
    told = "".join(decoding.add(i) for i in ids) + decoding.rest()
    assert told == tokenizer.decode(ids)


def test_an_empty_model_file_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(TokenizerError, match="is empty"):
        llamazoo.load_tokenizer(tmp_path)
