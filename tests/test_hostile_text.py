"""Chat templates and tokenizers from strangers: they neither run away, nor reach for what is not theirs."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

import llamazoo
from llamazoo.chat.template import ChatTemplate
from llamazoo.errors import TemplateError, TokenizerError
from llamazoo.generation.patterns import KNOWN

STEPS, TOO_DEEP, ATTRIBUTE = "takes more than [0-9]+ steps", "is nested too deeply", "reaches for the attribute"
UNKNOWN, UNSUPPORTED = "No filter named", "is not supported in a chat template"
TWICE = "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(30) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
GROWING = "{% set n = namespace(x=START) %}{% for i in range(60) %}{% set n.x = n.x SIGN n.x %}{% endfor %}"
ATTACKS = {
    # loops
    "{% for i in range(10**9) %}x{% endfor %}": STEPS,
    "{% for i in range(999) %}{% for j in range(999) %}{% for k in range(999) %}{% endfor %}{% endfor %}{% endfor %}": STEPS,
    "{% macro f(n) %}{{ f(n-1) }}{{ f(n-1) }}{% endmacro %}{{ f(100) }}": TOO_DEEP,
    "{% macro f(n) %}{% if n > 1 %}{{ f(n-1) }}{{ f(n-2) }}{% endif %}{% endmacro %}{{ f(60) }}": STEPS,
    "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call f() %}" * 60 + "x" + "{% endcall %}" * 60: STEPS,
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}": "a recursive loop is not supported",
    "{% for i in range(50000) %}{% set x = [" + "1," * 5000 + "] %}{% endfor %}": STEPS,
    "{% for i in range(50000) if [" + "1," * 5000 + "] %}{% endfor %}": STEPS,
    "{% set a = 'x' * 1000000 %}{% for i in range(50000) %}{% set b = a[1:] %}{% endfor %}": STEPS,
    "{% set a = 'x' * 999999 %}{% set b = 'x' * 999999 %}{% for i in range(50000) %}{{ a == b }}{% endfor %}": STEPS,
    "{% set a = 'x' * 1000000 %}{% for i in range(50000) %}{% set b = a.upper() %}{% endfor %}": STEPS,
    "{% for i in range(9999) %}{% set x = range(3000)|list|sort(reverse=true) %}{% endfor %}": STEPS,
    # memory
    "{{ 'x' * 10**9 }}": STEPS,
    "{{ 10**9 * 'x' }}": STEPS,
    "{{ ([1] * 10**9)|length }}": STEPS,
    GROWING.replace("START", "'aa'").replace("SIGN", "~"): STEPS,
    GROWING.replace("START", "'aa'").replace("SIGN", "+"): STEPS,
    GROWING.replace("START", "[1]").replace("SIGN", "+"): STEPS,
    TWICE + "{{ n.a }}": STEPS,
    TWICE + "{{ n.a == n.b }}": STEPS,
    TWICE + "{{ n.a in [n.b] }}": STEPS,
    TWICE + "{{ n.a is eq(n.b) }}": STEPS,
    TWICE + "{{ [n.a].index(n.b) }}": STEPS,
    TWICE + "{{ n.a|tojson }}": STEPS,
    TWICE.replace("30", "900") + "{{ n.a }}": "puts lists into lists, more than 40 deep",
    "{{ ('a' * 100000).replace('', 'b' * 100000) }}": STEPS,
    "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}": STEPS,
    "{{ ('b' * 100000).join(['a'] * 100000) }}": STEPS,
    "{{ (['a'] * 100000)|join('b' * 100000) }}": STEPS,
    "{{ ('\n' * 6000000).splitlines() }}": STEPS,
    "{{ ('a' * 1000000)|unique|list }}": STEPS,
    "{% macro m() %}{% for i in range(99999) %}" + "y" * 999 + "{% endfor %}{% endmacro %}{% set x = m() %}": STEPS,
    "{% set x %}{% for i in range(99999) %}" + "y" * 999 + "{% endfor %}{% endset %}": STEPS,
    # numbers and widths
    "{{ (2**1000)**1000 }}": "of numbers too large",
    "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}": "of numbers too large",
    "{{ 5|round(-(10**9), 'ceil') }}": "rounds by",
    "{{ 5|round(10**9) }}": "rounds by",
    "{{ '%1000000000d' % 1 }}": "only fields such as",
    "{{ '%.1000000000f' % 1 }}": "only fields such as",
    "{{ '%*d' % (1000000000, 1) }}": "only fields such as",
    "{{ '%1000000000d'|format(1) }}": "only fields such as",
    "{{ '{:1000000000}'.format(1) }}": "has no attribute 'format'",
    "{{ 'x'.center(10**9) }}": "pads a text to 1000000000 characters",
    "{{ 'x'.ljust(10**9) }}": "pads a text",
    "{{ 'x'.zfill(10**9) }}": "pads a text",
    "{{ 'x'|center(10**9) }}": UNKNOWN,
    "{{ 'x'|indent(10**9) }}": "indents by",
    "{{ [1]|tojson(indent=10**9) }}": "indents by",
    "{{ [1, 2]|tojson(separators=['x' * 99, 'y']) }}": "separators have more than",
    "{{ [1]|batch(10**9, 'x')|list }}": UNKNOWN,
    "{{ strftime_now('%Y' * 1000) }}": "asks for the time in a form of more than",
    # attributes and files
    "{{ ''.__class__.__mro__ }}": ATTRIBUTE,
    "{{ ''['__class__'] }}": ATTRIBUTE,
    "{{ ['']|map(attribute='__class__')|list }}": ATTRIBUTE,
    "{{ ''|attr('__class__') }}": UNKNOWN,
    "{{ raise_exception.__globals__ }}": ATTRIBUTE,
    "{{ self.__init__.__globals__ }}": ATTRIBUTE,
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}": ATTRIBUTE,
    "{{ namespace.__init__.__globals__ }}": ATTRIBUTE,
    "{{ namespace(a=1).__class__ }}": ATTRIBUTE,
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}": ATTRIBUTE,
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}": ATTRIBUTE,
    "{% macro m() %}{% endmacro %}{{ m['_func'] }}": ATTRIBUTE,
    "{{ ().__class__.__base__.__subclasses__() }}": ATTRIBUTE,
    "{{ range }}": "writes a method, which is no text",
    "{{ 'a'.upper }}": "writes a Method, which is no text",
    "{{ messages.append(1) }}": "has no attribute 'append'",
    "{{ messages[0].update(a=1) }}": "has no attribute 'update'",
    "{% import 'os' as os %}": UNSUPPORTED,
    "{% from 'os' import path %}": UNSUPPORTED,
    "{% include '/etc/passwd' %}": UNSUPPORTED,
    "{% extends '/etc/passwd' %}": UNSUPPORTED,
    "{% block a %}{{ self.a() }}{% endblock %}": UNSUPPORTED,
    # programs that jinja2 cannot read
    "{% if %}": "Expected an expression",
    "{{ " * 9999: TOO_DEEP,
    "{{ " + "(" * 9999 + ")" * 9999 + " }}": TOO_DEEP,
    "{% if 1 %}" * 999 + "{% endif %}" * 999: TOO_DEEP,
    "{{ a" + ".b" * 3000 + " }}": TOO_DEEP,
    "{{ a }}{% set a = 1 %}" * 2000: "has [0-9]+ expressions and statements; a chat template has at most 6000",
    "x" * 50_000: "has 50000 characters; a chat template has at most 49152",
    "a\ud83e": "is not Unicode",
    "{{ '\\ud83e' }}": "surrogates not allowed",
    "{{ 1 + 'a' }}": "which is nothing",
    "{{ {[1]: 2} }}": "unhashable",
    "{{ raise_exception('x' * 9999) }}": "refuses this conversation: x{500}$",
}


@pytest.mark.parametrize("source", ATTACKS, ids=lambda source: ascii(source)[:40])
def test_a_template_that_loops_allocates_or_reaches_for_attributes_is_stopped(source: str) -> None:
    with pytest.raises(TemplateError, match=ATTACKS[source]) as caught:
        ChatTemplate(source, "folder/chat_template.jinja").render({"messages": [{"role": "user", "content": "hi"}]})
    assert str(caught.value).startswith("folder/chat_template.jinja: ")


def test_what_is_written_is_bounded() -> None:
    with pytest.raises(TemplateError, match=r"writes more than \d+ characters"):
        ChatTemplate("{% set x = 'x' * 60000 %}{% for i in range(30) %}{{ x }}{% endfor %}", "t").render({"messages": []})


# Tokenizers


def saved(folder: Path, **parts: Any) -> Path:
    made = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    for name, part in parts.items():
        setattr(made, name, part)
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a+)+$", "repeats a group that can match in several ways"),
        ("(a|a)*$", "repeats a group"),
        ("(?:a?){30}a{30}$", "repeats a group"),
        (r"(\w+\s?)*$", "repeats a group"),
        ("((a*)*)*", "repeats a group"),
        ("(?:a|aa){40}b", "repeats a group"),
        ("a*a*a*a*$", r"takes too long on (a run|runs of \d+ characters such as) "),
        ("a*a*[bc]", r"takes too long on runs of \d+ characters such as 'aa'"),
        (r"\s*\s*\s*[bc]", r"takes too long on "),
        ("\u00e9*\u00e9*[bc]", "takes too long on "),
        ("x" * 5000, "has 5000 characters; 4000 are the most"),
    ],
    ids=lambda v: v[:20],
)
@pytest.mark.parametrize("where", ["pre_tokenizer", "normalizer", "within"])
def test_a_pattern_that_backtracks_without_end_is_refused_at_load(pattern: str, message: str, where: str, tmp_path: Path) -> None:
    split, replace = pre_tokenizers.Split(Regex(pattern), "isolated"), normalizers.Replace(Regex(pattern), "x")
    parts = {
        "pre_tokenizer": {"pre_tokenizer": split},
        "normalizer": {"normalizer": replace},
        "within": {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Digits(), split])},
    }
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: its pattern '.*" + message):
        llamazoo.load_tokenizer(saved(tmp_path, **parts[where]))


@pytest.mark.parametrize(
    "pattern", [*sorted(KNOWN), r"\p{N}{1,3}", r"(?:\r?\n)+", r" ?[^(\s|[.,!?])]+", "[\u4e00-\u9fa5]+"], ids=lambda v: v[:20]
)
def test_patterns_in_wide_use_are_taken(pattern: str, tmp_path: Path) -> None:
    found = llamazoo.load_tokenizer(saved(tmp_path, pre_tokenizer=pre_tokenizers.Split(Regex(pattern), "isolated")))
    assert found.encode("ab" * 10_000) == [0, 1] * 10_000


def test_patterns_without_number_are_refused(tmp_path: Path) -> None:
    many = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(f"a{i}"), "isolated") for i in range(9)])
    with pytest.raises(TokenizerError, match="has more than 8 regular expressions"):
        llamazoo.load_tokenizer(saved(tmp_path, pre_tokenizer=many))


def test_a_pattern_that_gives_up_within_a_text_is_an_error_of_the_tokenizer(tmp_path: Path) -> None:
    found = llamazoo.load_tokenizer(saved(tmp_path))
    found.tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: cannot encode this text: Onig: Regex search error: retry-limit"):
        found.encode("a" * 40 + "b")


def test_millions_of_merges_are_refused_before_they_are_read(tmp_path: Path) -> None:
    merges = ",".join(['["a","b"]'] * 900_000)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [' + merges + "]}}")
    with pytest.raises(TokenizerError, match=r"has 18000\d\d texts; a vocabulary with its merges has at most 1600000"):
        llamazoo.load_tokenizer(tmp_path)


def test_half_a_surrogate_pair_in_a_tokenizer_is_refused_at_load(tmp_path: Path) -> None:
    described = {"model": {"type": "BPE", "vocab": {"\ud83e": 0}, "merges": []}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(TokenizerError, match=r"is no tokenizer\.json: (lone leading surrogate|unexpected end of hex escape)"):
        llamazoo.load_tokenizer(tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused_wherever_both_meet(tmp_path: Path) -> None:
    tokenizer = llamazoo.load_tokenizer(saved(tmp_path))
    model = llamazoo.build_model("llama-tiny", overrides={"vocab_size": 1, "n_layers": 1})
    for meet in (
        lambda: llamazoo.generate(model, "a", max_new_tokens=1, tokenizer=tokenizer),
        lambda: llamazoo.Conversation(model, tokenizer),
    ):
        with pytest.raises(TokenizerError, match="the tokenizer has 2 ids, the model's vocabulary only 1"):
            meet()


def test_a_decoders_pattern_is_tried_at_load_too(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.decoder = tokenizers.decoders.Replace(tokenizers.Regex("(?:!|!)+[0-9]"), "z")
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"its pattern .* "):
        llamazoo.load_tokenizer(tmp_path)
