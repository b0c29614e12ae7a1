"""What a hostile model writes runs nothing and loads nothing; the mark of a switch breaks no structure."""

from __future__ import annotations

import asyncio
import re

import pytest
from browser import Open, written
from serving import ScriptedService, Step, finished

from wsd_local.core.turns import Turn
from wsd_local.core.written import ReplyToken
from wsd_local.events import Checked, Returned, Source, Switched, Text
from wsd_local.runtime.reply import Switch
from wsd_local.store import Store

ELSEWHERE = "elsewhere.invalid"
FOUND = """() => {
  const all = (where) => [...document.querySelectorAll(`.reply .text ${where}`)];
  return {
    tags: [...new Set(all("*").map((one) => one.localName))],
    names: [...all("[id]"), ...all("[name]"), ...all("[style]")].length,
    links: all("a").map((one) => [one.protocol, one.rel, one.target]),
  };
}"""
HARMLESS = re.compile(
    r"a|blockquote|br|button|code|div|em|h\d|li|ol|p|pre|span|strong|svg|table|tbody|td|th|thead|tr|ul|use"
)
OUTLINE = """(reply) => [...reply.querySelectorAll(".text *")].map((one) => one.localName)
  .filter((one) => !["span", "svg", "use", "button", "div"].includes(one))"""
HOSTILE = {
    "script": f"<script>window.ran = 1; fetch('https://{ELSEWHERE}')</script>",
    "script in a line": "before <script>window.ran = 1</script> after",
    "onerror": f'<img src="https://{ELSEWHERE}/x.png" onerror="window.ran = 1">',
    "onload": '<svg onload="window.ran = 1"><script>window.ran = 1</script></svg>',
    "javascript link": "[click](javascript:window.ran=1) [y](JaVaScRiPt:window.ran=1)",
    "javascript anchor": "<a href='javascript:window.ran=1'>x</a>",
    "coded javascript link": "[click](&#106;avascript:window.ran=1) [tab](java\tscript:window.ran=1) [v](vbscript:x)",
    "data link": "[click](data:text/html,<script>parent.ran=1</script>) [svg](data:image/svg+xml;base64,PHN2Zz4=)",
    "remote picture": f"![a picture](https://{ELSEWHERE}/x.png) ![data](data:image/png;base64,AA==)",
    "reference picture": f"![a][b]\n\n[b]: https://{ELSEWHERE}/y.png 'title \" onerror=window.ran=1'",
    "iframe": f'<iframe src="https://{ELSEWHERE}" srcdoc="<script>parent.ran=1</script>"></iframe>',
    "style": f"<style>body {{ display: none; background: url(https://{ELSEWHERE}/z) }}</style>",
    "style sheet": f"<link rel=stylesheet href=//{ELSEWHERE}>",
    "style attribute": f'<p style="position:fixed;inset:0;background:url(//{ELSEWHERE}/a)">over</p>',
    "clobbering": '<form id="app"><input name="attributes" id="message"></form><a id="log" name="getElementById">x</a>',
    "form": f'<form action="https://{ELSEWHERE}"><button autofocus onfocus="window.ran=1">Send</button></form>',
    "base": f'<base href="https://{ELSEWHERE}/"><meta http-equiv="refresh" content="0;url=https://{ELSEWHERE}">',
    "object": f'<object data="https://{ELSEWHERE}"></object><embed src="//{ELSEWHERE}">',
    "video": f'<video src="//{ELSEWHERE}/v" autoplay>',
    "math": '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.ran=1&gt;">',
    "template": "<template><img src=x onerror=window.ran=1></template>",
    "noscript": '<noscript><p title="</noscript><img src=x onerror=window.ran=1>">',
    "code fence": '```html"><img src=x onerror=window.ran=1>\n</code></pre><script>window.ran=1</script>\n```',
    "code language": "```<script>window.ran=1</script>\nx\n```",
    "link title": '[x](https://example.org "\\" onmouseover=window.ran=1 x=\\"")',
    "autolink": '<https://example.org/"onmouseover=window.ran=1> <javascript:window.ran=1>',
    "mark": "\ue000\ue000 text with \ue000 marks \u202e reversed \x1b[31m",
    "html entity": "&lt;script&gt;window.ran=1&lt;/script&gt; &#60;img src=x onerror=window.ran=1&#62;",
    "table": "| <img src=x onerror=window.ran=1> | [a](javascript:window.ran=1) |\n|-|-|\n| a | b |",
    "nested": "> - **<svg/onload=window.ran=1>**\n>   1. <details open ontoggle=window.ran=1>x</details>",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_a_model_writes_runs_nothing_and_loads_nothing(window: Open, text: str) -> None:
    both = f"{text}\n\n{text}"
    pieces = [Text(text[at : at + 7], "base") for at in range(0, len(text), 7)]
    shown = window(ScriptedService([Text(f"{text}\n\n", "draft"), *pieces, finished(both, kept=f"{text}\n\n")]))
    shown.ask(text)
    page = shown.page
    for link in page.locator(".reply .text a").all():
        link.hover()
    assert page.evaluate("[window.ran, document.defaultView === window]") == [None, True]
    assert shown.elsewhere == []
    found = page.evaluate(FOUND)
    assert all(HARMLESS.fullmatch(tag) for tag in found["tags"]) and found["names"] == 0, found
    assert all(link == ["https:", "noopener noreferrer nofollow", "_blank"] for link in found["links"]), found
    assert page.locator(".reply .text svg:not(.icon)").count() == 0
    assert page.is_visible("#message") and page.locator("#message").count() == 1


def test_hostile_titles_names_and_questions_are_text(window: Open, chats: Store) -> None:
    name = "<img src=x onerror=window.ran=1>"
    chat = chats.chats.create(title=name, pair=name, system=name)
    chats.messages.add(chat, None, "user", name)
    shown = window(written(name), path=f"/#chat={chat}")
    shown.page.locator(".typed").wait_for()
    shown.page.fill("#search", "img")
    shown.page.locator("#chats mark").wait_for()
    assert shown.page.evaluate("window.ran") is None and shown.page.locator("img").count() == 0
    assert shown.page.locator(".typed").inner_text() == name == shown.page.locator("#title").inner_text()


def test_a_link_shows_where_it_leads(window: Open) -> None:
    shown = window(written("[your bank](https://example.org/steal) and <https://example.org/plain>"))
    shown.ask("one?")
    assert shown.page.locator(".reply .text").inner_text() == (
        "your bank (https://example.org/steal) and https://example.org/plain"
    )


MARKED = {
    "in a word": ("Great ans", "wer."),
    "in bold": ("It is **very im", "portant** here."),
    "before a list": ("Steps:\n\n", "- one\n- two\n"),
    "in a list": ("- one\n- t", "wo\n- three\n"),
    "before a heading": ("Text.\n\n", "# Heading\n\nMore.\n"),
    "in code": ("```python\nprint(", "1)\n```\n"),
    "before a fence's end": ("```python\nprint(1)\n", "```\nText.\n"),
    "in a link": ("See [the ", "page](https://example.org).\n"),
    "in a table": ("| a | b |\n|-|-|\n| c", " | d |\n"),
    "after a paragraph": ("One.\n\n", "Two.\n"),
}


@pytest.mark.parametrize(("draft", "base"), MARKED.values(), ids=MARKED)
def test_the_mark_leaves_the_structure_as_it_is(window: Open, draft: str, base: str) -> None:
    service = written(draft + base)
    shown = window(service)
    shown.ask("one?")
    switched = Switched("threshold", 3, 4, 0.91)
    service.steps = [Text(draft, "draft"), switched, Text(base, "base"), finished(draft + base, kept=draft)]
    shown.ask("two?")
    plain, marked = (shown.page.locator(".reply").nth(number) for number in (0, 1))
    assert marked.evaluate(OUTLINE) == plain.evaluate(OUTLINE)
    assert plain.locator(".switch").count() == 0 and marked.locator(".switch").count() == 1


def test_each_turn_of_the_draft_ends_with_its_own_mark(window: Open) -> None:
    words: list[tuple[str, Source]] = [("One ", "draft"), ("two ", "base"), ("three ", "draft"), ("four.", "base")]
    events: list[Step] = [
        Text("One ", "draft"),
        Switched("threshold", 0, 1, 0.91),
        Text("two ", "base"),
        Returned(2, 0.3),
        Text("three ", "draft"),
        Checked(2, (0.9,), (0.85,)),
        Switched("threshold", 2, 1, 0.85),
        Text("four.", "base"),
    ]
    tokens = tuple(ReplyToken(number, text, who, 0.9, None) for number, (text, who) in enumerate(words))
    turns = (
        Turn("draft", 0, 1, "threshold", 0.91),
        Turn("base", 1, 2, "unsure", 0.3),
        Turn("draft", 2, 3, "threshold", 0.85),
        Turn("base", 3, 4, "stop"),
    )
    switch = Switch(0, "threshold", 0.91, 6, 0.8)
    end = finished("One two three four.", kept="One ", tokens=tokens, turns=turns, switch=switch)
    hold = asyncio.Event()
    service = ScriptedService([*events, hold, end])
    page = window(service).page
    page.fill("#message", "one?")
    page.press("#message", "Enter")
    marks = page.locator(".reply .switch [aria-hidden]")
    marks.nth(1).wait_for()
    assert marks.all_inner_texts() == ["0.91", "0.85"]
    assert service.loop is not None
    service.loop.call_soon_threadsafe(hold.set)
    page.locator(".reply:not(.writing) .counts").wait_for()
    assert marks.all_inner_texts() == ["0.91", "0.85"]
    assert [one.strip() for one in page.locator(".reply .by-draft").all_inner_texts()] == ["One", "three"]
