"""Text from files and models, made fit for a terminal."""

import unicodedata

__all__ = ["visible"]

HARMLESS = "\n\t\u200c\u200d"  # the last two join letters, or keep them apart, in many scripts and in emoji


def visible(text: str) -> str:
    """The text with control characters, and those that turn the direction of writing, as escapes: they could rewrite the screen."""
    return "".join(c if c in HARMLESS or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else ascii(c)[1:-1] for c in text)
