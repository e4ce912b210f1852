"""Ranks for tiktoken: told from sentencepiece by what stands in them, and encoded as tiktoken itself encodes."""

import base64
import itertools
import random
from pathlib import Path

import pytest
import tiktoken

import llamazoo
from llamazoo.errors import TokenizerError
from llamazoo.generation.ranks import Llama3Ranks, QwenRanks, RankTokenizer

TEXTS = [
    "",
    "The llamas' wool: isn't it warm? I'LL SEE 12345 of them...",
    "  two  spaces,\ta tab\r\n\r\n  and lines \n",
    "na\u00efve caf\u00e9 e\u0301 \u6f22\u5b57 \U0001f999\U0001f468\u200d\U0001f469 \u0627\u0644\u0633 \u0661\u0662\u0663\u0664",
    "a" * 300 + " " * 90 + "\x00\x7f\u2028\ufeff",
]


def trained(count: int, seed: int = 0) -> dict[bytes, int]:
    """Ranks as training gives them: again and again, the most frequent pair of a corpus is joined."""
    chance = random.Random(seed)
    words = [bytes(chance.choice(b"aab ") for _ in range(chance.randrange(2, 12))) for _ in range(60)]
    words += [word.encode() for text in TEXTS[:-1] for word in text.split()] * 3
    parts = [[bytes([byte]) for byte in word] for word in words]
    ranks = {bytes([byte]): rank for rank, byte in enumerate(chance.sample(range(256), 256))}
    while len(ranks) < count:
        pairs = [pair for word in parts for pair in itertools.pairwise(word) if b"".join(pair) not in ranks]
        if not pairs:
            break
        best = max(sorted(set(pairs)), key=pairs.count)
        ranks[b"".join(best)] = len(ranks)
        parts = [joined(word, best) for word in parts]
    return ranks


def joined(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    made: list[bytes] = []
    for part in word:
        if made and (made[-1], part) == pair:
            made[-1] += part
        else:
            made.append(part)
    return made


def written(ranks: dict[bytes, int], path: Path) -> Path:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


def small(count: int, of: type[RankTokenizer]) -> type[RankTokenizer]:
    return type("Small", (of,), {"name": "small", "count": count})


def texts(seed: int) -> list[str]:
    chance = random.Random(seed)
    alphabets = ["ab ", "aab  \n'", "".join(map(chr, range(32, 127))), "\u00e9\u6f22\U0001f999a1 \u0301\u0661\r\n"]
    return ["".join(chance.choices(alphabet, k=chance.randrange(40))) for alphabet in alphabets for _ in range(60)]


@pytest.mark.parametrize("family", [Llama3Ranks, QwenRanks])
@pytest.mark.parametrize("seed", range(3))
def test_ids_are_those_of_tiktoken(seed: int, family: type[RankTokenizer], tmp_path: Path) -> None:
    ranks = trained(360, seed)
    form = small(len(ranks), family)
    ours = form(written(ranks, tmp_path / "small.model"))
    specials = {token: len(ranks) + i for i, token in enumerate(family.specials)}
    theirs = tiktoken.Encoding("small", pat_str=family.pattern, mergeable_ranks=ranks, special_tokens=specials)
    assert ours.vocab_size == theirs.n_vocab
    begin = [] if ours.bos_id is None else [ours.bos_id]
    for text in [*TEXTS, *texts(seed), f"a{family.specials[0]} b{family.specials[1]}"]:
        composed = ours.tokenizer.normalizer.normalize_str(text) if family.composes else text
        expected = theirs.encode(composed, allowed_special="all")
        assert ours.encode(text) == [*begin, *expected]
        assert ours.decode(expected) == composed


def test_any_bytes_come_back_from_their_ids(tmp_path: Path) -> None:
    ranks = trained(300)
    found = small(len(ranks), Llama3Ranks)(written(ranks, tmp_path / "small.model"))
    for byte in range(256):
        assert found.decode([ranks[bytes([byte])]]) == bytes([byte]).decode(errors="replace")
    data = "\u6f22\U0001f999".encode()
    assert found.decode([ranks[bytes([byte])] for byte in data]) == data.decode()


@pytest.fixture(scope="module")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Llama 3's size: single bytes, all pairs of two, and some of three."""
    tokens = [bytes([a]) for a in range(256)] + [bytes(pair) for pair in itertools.product(range(256), repeat=2)]
    tokens += [bytes([a, b, c]) for a in range(256) for b in range(256) for c in b"a"][: 128_000 - len(tokens)]
    return written({token: rank for rank, token in enumerate(tokens[:128_000])}, tmp_path_factory.mktemp("llama3") / "tokenizer.model")


def test_a_file_of_the_size_of_llama_3_is_told_from_sentencepiece_by_its_content(llama3: Path, tmp_path: Path) -> None:
    padding = {bytes([7, 7, a, b]): 0 for a in range(256) for b in range(256)}
    lines = llama3.read_bytes().splitlines()
    extra = itertools.islice((token for token in padding), 128_000 - len(lines))
    llama3.write_bytes(b"\n".join([*lines, *(base64.b64encode(t) + b" %d" % (len(lines) + i) for i, t in enumerate(extra))]) + b"\n")
    found = llamazoo.load_tokenizer(llama3.parent)
    assert isinstance(found, Llama3Ranks)
    assert (found.vocab_size, found.bos_id, found.eos_ids) == (128_256, 128_000, (128_001, 128_009))
    assert found.controls["<|start_header_id|>"] == 128_006
    assert found.controls["<|reserved_special_token_250|>"] == 128_255
    text = "The llama <|eot_id|> \U0001f999"
    assert found.decode(found.encode(text)) == "<|begin_of_text|>" + text
    found.save(tmp_path)
    assert llamazoo.load_tokenizer(tmp_path).encode(text) == found.encode(text)


def test_a_file_of_another_size_is_of_no_known_family(tmp_path: Path) -> None:
    written(trained(300), tmp_path / "tokenizer.model")
    with pytest.raises(TokenizerError, match=r"has \d+ ranks, where llama3 has 128000; only its pattern is known for it"):
        llamazoo.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").rename(tmp_path / "qwen.tiktoken")
    with pytest.raises(TokenizerError, match=r"has \d+ ranks, where qwen has 151643"):
        llamazoo.load_tokenizer(tmp_path)


GOOD = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b"YWI= 256\nYW\n", "line 258 is no token in base64 and its rank: b'YW'"),
        (GOOD + b"YWI= -1\n", "line 257 is no token in base64"),
        (GOOD + b"YWI= 1e3\n", "line 257 is no token in base64"),
        (GOOD + b"\xff\xfe 256\n", "line 257 is no token in base64"),
        (GOOD + b"YWI= 99999999999\n", "line 257 is no token in base64"),
        (GOOD + b"YWI= 258\n", "the ranks are not the numbers from 0 to 256, each once"),
        (GOOD + b"YWI= 255\n", "the ranks are not the numbers from 0 to 256, each once"),
        (GOOD + b"YQ== 256\n", "line 257 gives a token again that has rank 97"),
        (GOOD.removesuffix(b"/w== 255\n"), "1 single bytes have no rank, 255 among them"),
        (GOOD + base64.b64encode(b"a" * 257) + b" 256\n", "line 257: a token has at most 256 bytes"),
    ],
    ids=lambda v: ascii(v)[-24:],
)
def test_ranks_that_are_none_are_refused_with_the_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        llamazoo.load_tokenizer(tmp_path)


def test_ranks_that_would_take_long_are_refused(tmp_path: Path) -> None:
    tokens = [b"a" * 250 + i.to_bytes(3, "big") for i in range(17_000)]
    lines = b"".join(base64.b64encode(token) + b" %d\n" % (256 + i) for i, token in enumerate(tokens))
    (tmp_path / "tokenizer.model").write_bytes(GOOD + lines)
    with pytest.raises(TokenizerError, match="a token has at most 256 bytes, all together 4194304"):
        llamazoo.load_tokenizer(tmp_path)
    with open(tmp_path / "tokenizer.model", "ab") as file:
        file.truncate(17 << 20)
    with pytest.raises(TokenizerError, match="has 17825792 bytes; a file of ranks has at most 16777216"):
        llamazoo.load_tokenizer(tmp_path)
