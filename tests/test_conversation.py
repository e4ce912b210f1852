"""Talking with a model: what is said, what is computed anew, and the command."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from typer.testing import CliRunner

import llamazoo
from llamazoo.cli.main import app
from llamazoo.errors import CannotRewind, ContextLengthError, InputError, TemplateError, TokenizerError
from llamazoo.generation.sampling import Sampling

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}:{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with fresh values and a chat template."""
    path = tmp_path_factory.mktemp("chat")
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.add_special_tokens(["<|start|>", "<|end|>"])
    made.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    changes = {"n_layers": 2, "vocab_size": 258, "max_seq_len": 256, "init": {"std": 0.3}}
    model = llamazoo.build_model("llama-tiny", overrides=changes)
    llamazoo.save_model(model, path / "model", tokenizer=llamazoo.load_tokenizer(path))
    return path / "model"


@pytest.fixture(scope="module")
def parts(folder: Path) -> tuple[llamazoo.Decoder, llamazoo.FileTokenizer]:
    tokenizer = llamazoo.load_tokenizer(folder)
    assert isinstance(tokenizer, llamazoo.FileTokenizer)
    return llamazoo.load_model(folder).eval(), tokenizer


def conversation(parts: tuple[llamazoo.Decoder, llamazoo.FileTokenizer], **settings: Any) -> llamazoo.Conversation:
    return llamazoo.Conversation(*parts, **{"max_new_tokens": 12, **settings})


def test_an_answer_is_what_generation_gives_for_the_same_ids(parts: Any) -> None:
    model, tokenizer = parts
    talk = conversation(parts, system="be brief")
    for text in ("hello", "and now?", "  more  "):
        said = "".join(talk.say(text))
        ids = tokenizer.chat(talk.messages[:-1])
        made = llamazoo.generate(model, ids, max_new_tokens=12, tokenizer=tokenizer, stop_ids=list(talk.stop_ids))
        assert said == made.text == talk.messages[-1]["content"]
    assert [m["role"] for m in talk.messages] == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]


def test_a_turn_computes_only_what_is_new(parts: Any) -> None:
    _, tokenizer = parts
    talk = conversation(parts)
    "".join(talk.say("a question of some length " * 3))
    before = talk.computed
    "".join(talk.say("b"))
    whole = len(tokenizer.chat(talk.messages[:-1]))
    assert talk.computed - before <= whole - 60 + 12
    assert talk.held[: len(tokenizer.chat(talk.messages[:-1]))] == tokenizer.chat(talk.messages[:-1])
    talk.reset()
    assert talk.messages == []
    fresh = conversation(parts)
    assert "".join(talk.say("c")) == "".join(fresh.say("c"))


def test_a_state_that_cannot_go_back_is_computed_anew(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    talk, other = conversation(parts), conversation(parts)

    def refuse(lengths: int) -> None:
        raise CannotRewind("no way back")

    for turn, text in enumerate(("one", "two", "three")):
        if turn and talk.state is not None:
            monkeypatch.setattr(talk.state, "rewind", refuse)
            talk.messages[-1]["content"] = other.messages[-1]["content"] = "changed"  # so that the state holds something else
        assert "".join(talk.say(text)) == "".join(other.say(text))
    assert talk.computed > other.computed


def test_an_answer_that_is_stopped_stays_in_the_conversation(parts: Any) -> None:
    talk = conversation(parts)
    pieces = talk.say("hello")
    first = next(pieces)
    pieces.close()
    assert talk.messages == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": first}]
    assert "".join(talk.say("go on")) == talk.messages[-1]["content"]


def test_the_token_that_the_template_puts_after_an_answer_ends_one(parts: Any) -> None:
    _, tokenizer = parts
    assert conversation(parts).stop_ids == {tokenizer.controls["<|end|>"]}


def test_equal_seeds_give_equal_conversations(parts: Any) -> None:
    said = [
        ["".join(talk.say(text)) for text in ("a", "b")]
        for seed in (3, 3, 4)
        for talk in [conversation(parts, sampling=Sampling(temperature=1.0, top_k=50), seed=seed)]
    ]
    assert said[0] == said[1] != said[2]


def test_a_conversation_longer_than_the_context_is_refused_and_goes_on_unchanged(parts: Any) -> None:
    talk = conversation(parts, max_new_tokens=200)
    "".join(talk.say("a" * 100))
    before = list(talk.messages)
    with pytest.raises(ContextLengthError, match="the model's context, max_seq_len, 256; begin a new one"):
        talk.say("b" * 300)
    assert talk.messages == before
    with pytest.raises(InputError, match="max_new_tokens is at least 1"):
        conversation(parts, max_new_tokens=0)
    small = llamazoo.build_model("llama-tiny", overrides={"n_layers": 1, "vocab_size": 100})
    with pytest.raises(TokenizerError, match="the tokenizer has 258 ids, the model's vocabulary only 100"):
        llamazoo.Conversation(small, parts[1])


# The command


def chat(folder: Path, text: str, *options: str) -> Any:
    return CliRunner().invoke(app, ["chat", str(folder), "--max-new-tokens", "12", *options], input=text)


def test_the_command_answers_line_by_line(folder: Path, parts: Any) -> None:
    talk = conversation(parts, system="hi")
    first, second = ("".join(talk.say(text)) for text in ("hello", "again"))
    talk.reset()
    third = "".join(talk.say("hello"))
    done = chat(folder, "hello\n\nagain\n/reset\nhello\n/exit\nnever\n", "--system", "hi")
    assert done.exit_code == 0
    assert done.stdout == f"{first}\n{second}\n{third}\n"
    assert "a new conversation" in done.stderr
    assert chat(folder, "").stdout == ""


def test_the_command_takes_a_template_and_says_what_a_model_without_one_is_for(folder: Path, tmp_path: Path) -> None:
    expected = chat(folder, "hello\n").stdout
    base = tmp_path / "base"
    tokenizer = llamazoo.load_tokenizer(folder)
    tokenizer.templates = type(tokenizer.templates)()
    llamazoo.save_model(llamazoo.load_model(folder), base, tokenizer=tokenizer)
    done = chat(base, "hello\n")
    assert done.exit_code == 2
    assert "has no chat template, so it is a base model, which continues text; use `llamazoo generate" in done.stderr
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    assert chat(base, "hello\n", "--template", str(tmp_path / "mine.jinja")).stdout == expected
    for name, content, message in (
        ("none.jinja", None, "there is no such file"),
        ("bad.jinja", b"{% if %}", "Expected an expression"),
        ("bytes.jinja", b"\xff", "is not UTF-8 text"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        done = chat(base, "hello\n", "--template", str(tmp_path / name))
        assert done.exit_code == 2
        assert message in done.stderr
    assert "--temperature 0 draws nothing" in chat(folder, "", "--top-k", "3").stderr


def test_what_cannot_be_said_ends_a_program_but_not_a_person(folder: Path) -> None:
    done = chat(folder, "a" * 400 + "\n")
    assert done.exit_code == 2
    assert "begin a new one" in done.stderr


def test_a_template_that_refuses_is_told_at_once(parts: Any) -> None:
    with pytest.raises(TemplateError, match="refuses this conversation: not today"):
        conversation(parts, template=llamazoo.ChatTemplate("{{ raise_exception('not today') }}", "t"))
