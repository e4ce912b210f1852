"""Messages as a template's text, in which what a message says cannot pass for what the template says.

A user who writes `<|eot_id|>` must not end a turn. Before a template sees the messages, each place in them where a control
token could begin, or where one could come about together with the template's text, gets a mark: some characters that nobody
can guess. In the text that comes out, a control token without a mark is the template's own. The marks are then taken out,
and the text has to be what the template makes of the bare messages; if it looks into them so closely that it is not, that is
said. Messages without such places are never changed.
"""

import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from llamazoo.chat.template import ChatTemplate, plain
from llamazoo.errors import InputError

__all__ = ["Message", "Rendered", "checked", "matching", "private_name", "rendered"]

Message = Mapping[str, str]
ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
PRIVATE = (0xF0000, 0xFFFFD)  # code points that Unicode leaves to private use


class Rendered(NamedTuple):
    """A conversation's text; where `mark` stands within it (if there is one), what is around it is no control token."""

    text: str
    mark: str | None = None


def checked(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages as maps of their own. Raises InputError for what is no conversation, with the message's number."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise InputError(f"a conversation is a list of messages, at least one, each {{role, content}}; found {ascii(messages)[:60]}")
    for number, message in enumerate(messages):
        where = f"message {number}"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            found = ", ".join(map(str, message)) if isinstance(message, Mapping) else type(message).__name__
            raise InputError(f"{where}: a message has a role and a content, and nothing else; found {found[:80]}")
        if not isinstance(message["role"], str) or not ROLE.fullmatch(message["role"]):
            raise InputError(f"{where}: a role is a short word such as user, found {ascii(message['role'])[:40]}")
        if not isinstance(message["content"], str):
            raise InputError(f"{where}: its content is a text, found {type(message['content']).__name__}")
    return [{"role": m["role"], "content": plain(m["content"], f"message {i}")} for i, m in enumerate(messages)]


def rendered(
    template: ChatTemplate,
    messages: Sequence[Message],
    own: Mapping[str, Any],
    variables: Mapping[str, Any],
    controls: Iterable[str],
) -> Rendered:
    """The text of a conversation. `own` are variables of the tokenizer, which may hold control tokens; texts in `variables` may not.

    Raises InputError, and TemplateError if the template fails or refuses.
    """
    conversation = checked(messages)
    given = {name: plain(value, name) for name, value in variables.items()}
    taken = sorted(set(given) & {"messages", *own})
    if taken:
        raise InputError(f"the variables {', '.join(taken)} are not free: the conversation or the tokenizer says what they are")
    text = template.render({**own, **given, "messages": conversation})
    tokens = sorted({control for control in controls if control}, key=lambda control: (-len(control), control))
    if not tokens:
        return Rendered(text)
    mark = _mark([text, template.source])
    places = Places(tokens, mark)
    marked = [{**message, "content": places.put(message["content"])} for message in conversation]
    noted = {name: _texts(value, places.put) for name, value in given.items()}
    if (marked, noted) == (conversation, given):
        return Rendered(text)
    found = template.render({**own, **noted, "messages": marked})
    if found.replace(mark, "") != text:
        raise InputError(
            "a message contains a control token of the model, and the chat template looks so closely at what messages say that "
            "it cannot be told apart from the template's own; take it out, or trust the messages with trust_content=True"
        )
    return Rendered(found, mark)


class Places:
    """Finds where a text could be taken for a control token, whole or together with what stands around it."""

    def __init__(self, tokens: Sequence[str], mark: str) -> None:
        self.tokens, self.mark = tokens, mark
        self.single = {token for token in tokens if len(token) == 1}
        self.whole = re.compile(f"(?=(?:{'|'.join(map(re.escape, tokens))}))")
        self.ends = {token[i:] for token in tokens for i in range(1, len(token))}
        self.begins = {token[:i] for token in tokens for i in range(1, len(token))}
        self.longest = max(map(len, tokens))

    def put(self, text: str) -> str:
        """The text with a mark at each such place."""
        if any(token in text for token in self.single):
            raise InputError("a message contains a control token of a single character, which cannot be told from the template's own")
        places = {found.start() + 1 for found in self.whole.finditer(text)}
        core = text.strip()
        first = text.index(core) if core else 0
        last = first + len(core)
        if any(core[:n] in self.ends for n in range(1, min(len(core), self.longest) + 1)) or (core and self._within(core)):
            places.add(first)
        if any(core[-n:] in self.begins for n in range(1, min(len(core), self.longest) + 1)):
            places.add(last)
        bounds = [0, *sorted(places), len(text)]
        return self.mark.join(text[a:b] for a, b in itertools.pairwise(bounds)) if places else text

    def _within(self, core: str) -> bool:
        return len(core) < self.longest and any(core in token for token in self.tokens)


def matching(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds tokens in a text, the longest of those that begin at one place."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=lambda token: (-len(token), token)))) or r"(?!)")


def private_name() -> str:
    """Some characters that nobody can guess, and that normalization leaves alone."""
    return "".join(chr(PRIVATE[0] + secrets.randbelow(PRIVATE[1] - PRIVATE[0])) for _ in range(6))


def _mark(texts: Sequence[str]) -> str:
    while True:
        mark = private_name()
        if not any(letter in text for letter in mark for text in texts):
            return mark


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a value with all its texts changed, but not its keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_texts(each, change) for each in value]
    return {key: _texts(each, change) for key, each in value.items()} if isinstance(value, dict) else value
