"""What a chat template may spend: every step costs, and so does every character and element that it handles."""

from typing import Any

from llamazoo.errors import TemplateError

__all__ = ["MAX_BITS", "Meter"]

CHARACTERS = 16  # for one unit
DEEPEST = 40  # levels of lists in lists
MAX_BITS = 1024  # of a whole number


class Meter:
    """A purse of units; a template that has spent them all has failed."""

    def __init__(self, units: int) -> None:
        self.given = self.left = units

    def spend(self, units: int) -> None:
        """Raises TemplateError when nothing is left."""
        self.left -= units
        if self.left < 0:
            raise TemplateError(f"the chat template takes more than {self.given} steps for this conversation")

    def text(self, length: int) -> None:
        """Spend for a text of so many characters."""
        self.spend(1 + length // CHARACTERS)

    def weigh(self, value: Any) -> Any:
        """The value, its whole content paid for: what refers to one list twice pays for it twice, as whoever prints it has to."""
        waiting = [(value, 0)]
        while waiting:
            item, depth = waiting.pop()
            if isinstance(item, str):
                self.text(len(item))
            elif isinstance(item, dict | list | tuple):
                if depth > DEEPEST:
                    raise TemplateError(f"the chat template puts lists into lists, more than {DEEPEST} deep")
                self.spend(1 + len(item))
                inner = [*item.keys(), *item.values()] if isinstance(item, dict) else item
                waiting += [(each, depth + 1) for each in inner]
            elif isinstance(item, int) and item.bit_length() > MAX_BITS:
                raise TemplateError(f"the chat template makes a number of {item.bit_length()} bits; {MAX_BITS} are allowed")
            else:
                self.spend(1)
        return value
