"""The text of ids that come one by one."""

from collections.abc import Sequence

from llamazoo.generation.tokenizer import Tokenizer

__all__ = ["Decoding"]

HALF = "\ufffd"  # what half a character decodes to


class Decoding:
    """The text of a growing list of ids, as far as it is certain: half a character waits for its other half.

    Only a few ids are decoded at a time, always from where a character begins, and with what came before: sentencepiece
    drops a space at the start of a text, and bytes that begin inside a character would be taken for broken ones.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        text = ""
        for kept in range(min(4, len(before)), min(12, len(before)) + 1):
            self.ids = list(before[len(before) - kept :])
            text = tokenizer.decode(self.ids) if self.ids else ""
            if not text.startswith(HALF):
                break
        self.shown = len(text.rstrip(HALF))  # how much of their text was told
        self.certain = 0 if text.endswith(HALF) else len(self.ids)  # how many ids that was

    def add(self, token: int, *, last: bool = False) -> str:
        """The text that one more id makes certain; with `last`, all that is left."""
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids)
        if text.endswith(HALF) and not last:
            return ""
        new, tail = text[self.shown :], self.ids[self.certain :]
        tail_text = self.tokenizer.decode(tail)
        if tail_text and text.endswith(tail_text):  # what is new now is context enough for what comes
            self.ids, text = tail, tail_text
        self.shown, self.certain = len(text), len(self.ids)
        return new

    def rest(self) -> str:
        """What is held back, when no more ids come."""
        return self.tokenizer.decode(self.ids)[self.shown :] if len(self.ids) > self.certain else ""
