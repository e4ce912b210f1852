"""How wide words are, without asking for a font: never less than in the fonts that a reader is likely to have."""

import unicodedata

__all__ = ["plain", "short", "shortened", "width", "wrapped"]

# Widths in em, of the widest of the usual sans-serif fonts (DejaVu Sans); a character that is not here is as wide as its class.
NARROW = dict.fromkeys(" !'(),./:;I|[]f-", 0.42) | dict.fromkeys("rt", 0.46) | dict.fromkeys("ijl'.,", 0.34)
WIDE = dict.fromkeys("mwMW@%", 1.01) | dict.fromkeys("#+<=>~^&OQGDHNU→×…", 0.84) | dict.fromkeys("ABCKRVXZ", 0.7)
USUAL, OTHER, FULL = 0.66, 0.9, 1.2
BOLD = 1.16


def width(text: str, size: float, bold: bool = False) -> float:
    """An upper bound of the width of one line, in the unit of `size`."""
    return size * (BOLD if bold else 1.0) * sum(_em(c) for c in text)


def _em(c: str) -> float:
    if c in WIDE:
        return WIDE[c]
    if c in NARROW:
        return NARROW[c]
    if c.isascii():
        return USUAL
    return FULL if unicodedata.east_asian_width(c) in "WF" else OTHER


def plain(text: str) -> str:
    """The text on one line; as escapes what XML forbids, or what turns the direction of writing."""
    visible = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cn", "Co", "Cs") else ascii(c)[1:-1] for c in " ".join(text.split()))
    return "".join(visible)


def shortened(text: str, size: float, room: float, bold: bool = False) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    text = plain(text)
    if width(text, size, bold) <= room:
        return text
    kept, used = "", width("…", size, bold)
    for c in text:
        used += width(c, size, bold)
        if used > room:
            break
        kept += c
    return kept.rstrip() + "…"


def wrapped(text: str, size: float, room: float, most: int = 3) -> list[str]:
    """The text in lines that fit, broken between words; the last of `most` lines is cut short if need be."""
    lines, pending = list[str](), plain(text).split(" ")
    while pending and len(lines) + 1 < most:
        line = [pending.pop(0)]
        while pending and width(" ".join([*line, pending[0]]), size) <= room:
            line.append(pending.pop(0))
        lines.append(shortened(" ".join(line), size, room))
    return [*lines, shortened(" ".join(pending), size, room)] if pending else lines


def short(count: int) -> str:
    """A number of parameters: 4,096, 45.1M, 6.74B."""
    if count < 10_000:
        return f"{count:,}"
    value, power = f"{count:.2e}".split("e")  # rounded first: 999,999 is 1.00M
    thousands = min(int(power) // 3, 4)
    digits = float(value) * 10 ** (int(power) - 3 * thousands)
    return f"{digits:.{max(0, 2 - int(power) + 3 * thousands)}f}{'KMBT'[thousands - 1]}"
