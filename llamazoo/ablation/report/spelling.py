"""How text of unknown origin, and numbers, are spelt in a report; escaping is up to whoever writes the page or the figure."""

import re
import unicodedata

from llamazoo.ablation.results import Outcome
from llamazoo.diagram.words import plain

__all__ = ["MINUS", "NOTHING", "amount", "fixed", "in_one_line", "p_value", "rate", "safe", "signed", "unit", "what"]

# A slash that begins a word, and folders after it: /srv/corpus/a.txt, ~/a/b, C:\a\b; but neither a/b nor https://a/b.
ABSOLUTE = re.compile(r"""(?<![\w./~\\])(?:(?:file://|~)?(?<!:/)/(?!/)|[A-Za-z]:[/\\])(?:[^\s/\\'":,;]+[/\\])+([^\s/\\'":,;]*)""")
UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs")
NOTHING, MINUS = "–", "−"


def safe(text: str) -> str:
    """The text without the folders of absolute paths, and with escapes for what cannot be seen or turns the direction of writing."""
    seen = "".join(c if c == "\n" or unicodedata.category(c) not in UNSEEN else ascii(c)[1:-1] for c in text)
    return ABSOLUTE.sub(lambda found: f"…/{found[1]}", seen)


def in_one_line(text: str) -> str:
    return safe(plain(text))


def fixed(value: float | None, places: int) -> str:
    """A number with so many places and a true minus sign; a dash for none."""
    return NOTHING if value is None else f"{value:.{places}f}".replace("-", MINUS)


def signed(value: float | None, places: int) -> str:
    return NOTHING if value is None else f"{value:+.{places}f}".replace("-", MINUS)


def p_value(p: float | None) -> str:
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def rate(lr: float) -> str:
    """A learning rate: 3e-3, 0.1."""
    if lr >= 0.1:
        return f"{lr:g}"
    figures, power = f"{lr:.6e}".split("e")
    return f"{float(figures):g}e{int(power)}"


def amount(value: float | None) -> str:
    """A large number in short: 512, 3.02k, 45.1M; a dash for none."""
    if value is None:
        return NOTHING
    if abs(value) < 1000:
        return f"{value:.3g}"
    figures, power = f"{value:.2e}".split("e")  # rounded first: 999,999 is 1.00M
    thousands = min(int(power) // 3, 5)
    return f"{float(figures) * 10 ** (int(power) - 3 * thousands):.{max(0, 2 - int(power) + 3 * thousands)}f}{'kMBTP'[thousands - 1]}"


def what(outcome: Outcome) -> str:
    """An outcome in words."""
    measure, _, where = outcome.partition("@")
    if where:
        return in_one_line(f"{measure.capitalize()} at {where.removesuffix('x')} times the trained length")
    measure, _, probe = outcome.partition(":")
    return in_one_line(f"Accuracy in {probe}" if probe else measure.capitalize())


def unit(outcome: Outcome) -> str:
    return "share of answers" if outcome.startswith("accuracy") else "nats a token"
