"""Regular expressions in a tokenizer.json: tried at load on what makes bad ones run away, so that no text of a user does.

The tokenizers library matches with Oniguruma, which backtracks, and gives up only after ten million steps from one place in a
text; a pattern may stay below that from every one of many places, and run for hours. Groups that repeat what can match in
several ways take exponential time, and are refused as such. What is left is matched with runs of one character, and of two
that alternate, which any pattern passes that does not look at a run again from each of its characters, several times over. A
pattern that runs away only on words of its own may pass; the library's limit then ends most of them. Patterns that are widely
used are known to be good.
"""

import itertools
import math
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Regex, pre_tokenizers

from llamazoo.errors import TokenizerError

__all__ = ["KNOWN", "check_patterns", "patterns_in"]

LENGTHS = tuple(round(8 * 1.3**i) for i in range(19))  # to 900; so close that what runs away is found while it takes little
ALWAYS, QUADRATIC = 0.015, 0.1  # seconds of this thread for a run, QUADRATIC at the last length: ten times what \s+$ takes
ONE_PATTERN, ALL_PATTERNS = 0.9, 2.0  # seconds for all runs
MEASURED = 4  # times, of a run that takes too long but not by far
MAX_PATTERN = 4000
MAX_PATTERNS = 8
TRIED = "aZz0_'.,;<#-+ \t\n\r\x00\u00e9\u00df\u0301\u0661\u4e2d\u3042\uac00\U0001f999\u200d\u00a0"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN = frozenset(
    {
        CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST,  # Llama 3
        CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST,  # Qwen 2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
        r"\d{1,3}(?=(?:\d{3})*\b)",  # digits by threes from the right, quadratic in their number
        " ",
    }
)
REPEAT = re.compile(r"[*+]|\?|\{(\d*)(,?)(\d*)\}")
CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)


def check_patterns(parts: Iterable[Any], where: str) -> None:
    """Raise TokenizerError if a pattern in the description of a normalizer, pre-tokenizer or decoder cannot be trusted with texts."""
    found = list(itertools.islice(patterns_in(list(parts)), MAX_PATTERNS + 1))
    if len(found) > MAX_PATTERNS:
        raise TokenizerError(f"{where}: has more than {MAX_PATTERNS} regular expressions")
    begun = time.thread_time()
    for pattern in dict.fromkeys(found):
        if pattern not in KNOWN:
            left = ALL_PATTERNS - (time.thread_time() - begun)
            reason = nested(pattern) or runs_away(pattern, min(ONE_PATTERN, left))
            if reason is not None:
                raise TokenizerError(f"{where}: its pattern {ascii(pattern)[:80]} {reason}")


def patterns_in(value: Any) -> Iterator[str]:
    """The regular expressions in the description of normalizers, pre-tokenizers and decoders."""
    if isinstance(value, dict):
        if isinstance(value.get("Regex"), str):
            yield value["Regex"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from patterns_in(each)


def nested(pattern: str) -> str | None:
    """Why a pattern may take exponential time: a repeated group that itself can match in several ways."""
    if len(pattern) > MAX_PATTERN:
        return f"has {len(pattern)} characters; {MAX_PATTERN} are the most"
    pattern = pattern.replace(r"\r?\n", "c")  # in one way only
    bare = re.sub(r"\\[pPx]\{[^}]*\}|\\.", "c", CLASS.sub("c", re.sub(r"\\\\", "c", pattern)), flags=re.DOTALL)
    if re.search(r"\(\?[<P&'RC(|]?[<=!]?[^)]*\\g|\(\?R|\(\?&", bare):
        return "refers to itself"
    open_at: list[int] = []
    for i, letter in enumerate(bare):
        if letter == "(":
            open_at.append(i)
        elif letter == ")" and open_at:
            inner = bare[open_at.pop() + 1 : i]
            if many(bare[i + 1 :]) and ("|" in inner or any(varies(found) for found in REPEAT.finditer(re.sub(r"^\?[:>=!<]*", "", inner)))):
                return "repeats a group that can match in several ways, which may take exponential time"
    return None


def many(rest: str) -> bool:
    """Whether what follows a group lets it match more than once."""
    found = REPEAT.match(rest)
    return found is not None and found[0] != "?" and (found[0] in "*+" or (found[3] or found[1]) != "1")


def varies(found: re.Match[str]) -> bool:
    """Whether a repeat may be of several lengths."""
    return not found[0].startswith("{") or (found[2] == "," and found[1] != found[3])


def runs_away(pattern: str, most: float) -> str | None:
    """Why a pattern takes too long on a run of like characters, or on all that are tried more than so many seconds."""
    try:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception as error:  # the library raises nothing more exact
        return f"is none: {str(error)[:100]}"
    own = [letter for letter in dict.fromkeys(pattern) if letter not in TRIED and not unicodedata.category(letter).startswith("C")]
    spent = 0.0
    for run in runs([*TRIED, *own[:100]]):
        allowed = ALWAYS + QUADRATIC * (len(run) / LENGTHS[-1]) ** 2
        taken = timed(split, run)
        for _ in range(MEASURED - 1):
            if allowed < taken < 4 * allowed:  # a busy machine may be slow once
                taken = timed(split, run)
        spent += taken
        if taken > allowed or spent > most:
            return f"takes too long on runs of {len(run)} characters such as {run[:2]!a}"
    return None


def timed(split: pre_tokenizers.PreTokenizer, run: str) -> float:
    """Seconds that it takes to split a text; without end if the library gives up."""
    begun = time.thread_time()
    try:
        split.pre_tokenize_str(run)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic, which is no Exception
        return math.inf
    return time.thread_time() - begun


def runs(letters: Iterable[str]) -> Iterator[str]:
    """Ever longer texts of one character, or of two, each with an end that is like nothing before, and one with everything."""
    letters = list(letters)
    everything = "!" + "".join(letters)  # a pattern whose last character is nowhere in a text fails without being tried
    for length in LENGTHS:
        for letter in letters:
            yield letter * length + "!"
            yield letter * length + everything
        for first, second in itertools.pairwise(letters):
            yield (first + second) * (length // 2) + everything
