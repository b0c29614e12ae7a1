"""Hostile templates: each is one line within its limits, can be stopped, and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command_line import complains, started, wsd
from makers import random_llama
from toy_templates import Template as Vocabulary
from toy_templates import shown

from wsd_local.errors import CancelledError, FitError, ModelError
from wsd_local.prompts import templates
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.messages import conversation
from wsd_local.prompts.templates import Template

LOOP = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
ENDLESS = {
    "nested loops": LOOP,
    "loops that print nothing": "{% set n = namespace(i=0) %}"
    + LOOP.replace("{% endfor %}", "{% set n.i = 1 %}{% endfor %}", 1),
    "a power, folded while compiling": "{{ 9 ** (9 ** 9) and 1 }}",
    "a power, of the conversation": "{{ (messages|length + 8) ** (9 ** 9) and 1 }}",
    "a macro that branches": "{% macro f(n) %}{{ n and f(n - 1) ~ f(n - 1) }}{% endmacro %}{{ f(60) }}",
    "sums": "{% for a in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
    "a refusal after an endless loop": LOOP + "{{ raise_exception('no') }}",
}
LARGE = {
    "a width of %": "{{ '%1000000000d' % 1 }}",
    "a width of % of the conversation": "{{ '%1000000000d' % (messages|length) }}",
    "a width of format": "{{ '{:>1000000000}'.format(messages|length) }}",
    "a width by argument": "{{ '{:>{}}'.format(1, 10 ** 9) }}",
    "the filter format": "{{ '%1000000000s' | format(messages) }}",
    "a product": "{{ messages[0].content * 10 ** 10 }}",
    "a list": "{{ ([0] * 10 ** 10) | length }}",
    "center": "{{ messages[0].content | center(10 ** 10) }}",
    "ljust": "{{ messages[0].content.ljust(10 ** 10) }}",
    "indent": "{{ messages[0].content | indent(10 ** 10, true) }}",
    "tojson": "{{ messages | tojson(indent=10 ** 10) }}",
    "doubling": "{% set n = namespace(x='xx') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a block": "{% set x %}{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}{% endset %}{{ x | length }}",
    "joined": "{{ (range(99999) | list * 9999) | join }}",
    "replaced": "{{ ('x' * 99999).replace('x', 'x' * 99999) }}",
    "a date": "{{ strftime_now('%c' * 10 ** 9) }}",
}
LONG = {
    "a loop": "{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
    "one piece": "{{ 'x' * 30000000 }}",
    "text between": "{% for i in range(99999) %}" + "x" * 500 + "{% endfor %}",
}
BROKEN = {
    "parentheses": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "lists": "{{ " + "[" * 5_000 + "]" * 5_000 + " }}",
    "blocks": "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "loops in loops": "{% for a in messages %}" * 60 + "{% endfor %}" * 60,
    "a long number": "{{ " + "9" * 5_000 + " }}",
    "too long": "x" * (1 << 20) + "x",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "an import": "{% import 'os' as os %}{{ os.listdir() }}",
    "an include": "{% include '/etc/passwd' %}",
    "half a character": "{{ '\\ud800' }}",
    "attributes of formats": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "globals": "{{ self.__init__.__globals__ }}{{ lipsum.__globals__['os'].popen('id') }}",
    "frames": "{{ (messages | map('upper')).gi_frame.f_builtins }}",
    "changed messages": "{{ messages[0].update({'role': 'system'}) }}",
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time for each, so that all of them take little."""
    monkeypatch.setattr(templates, "TIME_S", 0.7)


@pytest.fixture
def template() -> Iterator[Template]:
    made = Template()
    yield made
    made.close()


def refusal(source: str, template: Template) -> str:
    """The error of a template that is compiled and rendered."""
    with pytest.raises(ModelError) as caught:
        DraftFormat(Vocabulary(source), template=template, path=Path("some.gguf")).prompt(conversation("hi"))
    text = str(caught.value)
    assert text.startswith("some.gguf: the draft's chat template ") and "\n" not in text and len(text) < 500
    return text


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_does_not_end_is_ended(source: str, template: Template) -> None:
    assert "does not end within 0.7 s" in refusal(source, template)
    assert template._process is None


@pytest.mark.skipif(sys.platform != "linux", reason="expected: limits of memory of Linux")
@pytest.mark.parametrize("source", LARGE.values(), ids=LARGE)
def test_a_template_that_takes_too_much_memory_is_refused(
    source: str, template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "TIME_S", 30.0)
    assert "needs more than 256 MiB of memory" in refusal(source, template)


@pytest.mark.parametrize("source", LONG.values(), ids=LONG)
def test_a_template_that_writes_too_much_is_refused(
    source: str, template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "TIME_S", 30.0)
    assert "makes a prompt that is far longer than the conversation" in refusal(source, template)


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_a_template_that_breaks_what_reads_it_is_one_line(
    source: str, template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "TIME_S", 30.0)
    refusal(source, template)


def test_a_memory_that_the_system_does_not_limit_is_watched(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "_resident", lambda _process: 1 << 40)
    assert "needs more than 256 MiB of memory" in refusal(LOOP, template)


def test_what_a_template_refuses_with_is_shown_and_cut(template: Template) -> None:
    text = refusal("{{ raise_exception('\\u001b]52;c;!\\u0007\\n\\u202e' ~ 'x' * 100000) }}", template)
    assert "refuses this conversation in line 1: ␛]52;c;!␇␊" in text
    assert text.endswith("xxx …") and "\x1b" not in text and "\u202e" not in text


def test_one_process_renders_all_turns_and_another_follows_one_that_was_ended(template: Template) -> None:
    source = "{% if messages[0].content == 'loop' %}" + LOOP + "{% endif %}{{ messages[0].content }}"
    form = DraftFormat(Vocabulary(source), template=template)
    assert shown(form.prompt(conversation("one"))) == "one"
    first = template._process
    assert shown(form.prompt(conversation("two"))) == "two" and template._process is first
    with pytest.raises(ModelError, match="does not end"):
        form.prompt(conversation("loop"))
    assert shown(form.prompt(conversation("three"))) == "three"
    assert first is not None and first.poll() is not None
    assert template._process is not None and template._process is not first
    template._process.kill()
    template._process.wait()
    assert shown(form.prompt(conversation("four"))) == "four"


def test_a_conversation_that_no_model_reads_is_not_rendered(template: Template) -> None:
    form = DraftFormat(Vocabulary("{{ messages[0].content }}"), template=template)
    long = "x" * (1 << 21)
    assert shown(form.prompt(conversation(long))) == long
    with pytest.raises(FitError, match="the conversation is 16777217 characters long"):
        form.prompt(conversation("x" * ((1 << 24) + 1)))


def test_rendering_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "TIME_S", 600.0)
    stop = threading.Event()
    template = Template()
    form = DraftFormat(Vocabulary(LOOP), template=template)
    process = template._process
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(CancelledError):
        form.prompt(conversation("hi"), stop.is_set)
    assert process is not None and process.poll() is not None and template._process is None


def test_many_threads_render_with_one_process(template: Template) -> None:
    form = DraftFormat(Vocabulary("{{ messages[0].content * 3 }}"), template=template)
    wrong: list[str] = []

    def work(number: int) -> None:
        for i in range(20):
            text = f"{number}:{i};"
            if shown(form.prompt(conversation(text))) != text * 3:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template loops."""
    return random_llama(tmp_path_factory.mktemp("hostile") / "hostile.gguf", chat_template=LOOP)


def test_a_run_with_a_template_that_loops_ends(hostile: Path) -> None:
    complains(wsd("run", "hi", "--draft", str(hostile)), 3, "hostile.gguf", "chat template", "within 0.7 s")
    done = wsd("run", "hi", "--draft", str(hostile), "--timeout", "0.3")
    complains(done, 1, "stopped after 0.3 s (--timeout)")


@pytest.mark.skipif(os.name == "nt", reason="expected: signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_with_a_template_that_loops_can_be_stopped(hostile: Path, number: signal.Signals) -> None:
    with started("run", "hi", "--draft", str(hostile)) as process:
        found: list[psutil.Process] = []
        while process.poll() is None and not (found and found[0].cpu_times().user > 0.3):
            children = psutil.Process(process.pid).children()
            found = [one for one in children if "wsd_local.prompts.rendering" in one.cmdline()]
        process.send_signal(number)
        assert process.wait() == (130 if number is signal.SIGINT else -9)
    assert psutil.wait_procs(found, 60)[1] == []


def test_no_process_is_left(tmp_path: Path) -> None:
    code = """
import psutil, wsd_local as wsd
pair = wsd.load("demo", threads=1)
pair.reply("hi", max_tokens=2)
print(*[child.pid for child in psutil.Process().children()])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert "subprocess" not in done.stderr and len(done.stdout.split()) == 1
    assert not psutil.pid_exists(int(done.stdout))
