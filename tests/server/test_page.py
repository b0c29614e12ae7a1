"""The page in a browser: what people do with it, what screen readers get, and how it fits small screens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from browser import ANSWER, OPENING, Open, opening, written
from serving import ScriptedService, Step, finished

from wsd_local.core.written import ReplyToken
from wsd_local.errors import WsdError
from wsd_local.events import Reading, Text
from wsd_local.runtime.reply import Switch
from wsd_local.server.service import Service
from wsd_local.settings import ReplySettings
from wsd_local.store import Store

HEARD = """() => {
  window.heard = [];
  const state = document.getElementById("state");
  new MutationObserver(() => window.heard.push(state.textContent)).observe(state, {childList: true});
}"""
CHANGES = """() => {
  window.changes = window.frames = 0;
  const frame = () => { window.frames += 1; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  const text = (all) => all.some((one) => one.target.className === "text");
  new MutationObserver((all) => { window.changes += Number(text(all)); })
    .observe(document.getElementById("log"), {childList: true, subtree: true});
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, textarea, select, summary, [role=group], dialog")]
  .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()
    || one.getAttribute("aria-labelledby")))
  .map((one) => one.outerHTML)"""
FOCUSED = "document.activeElement.id || document.activeElement.getAttribute('aria-label') || ''"


# -- what people do --------------------------------------------------------------------------------------------------


def test_a_question_to_the_embedded_pair(service: Service, window: Open, chats: Store) -> None:
    shown = window(service)
    shown.ask("How do I boil an egg?")
    page, row = shown.page, chats.messages.get(2)
    assert row.reply is not None
    draft = "".join(text for who, text in row.parts if who == "draft")
    assert page.locator(".reply .by-draft").inner_text() == draft.strip()
    label = page.locator(".reply .switch [aria-hidden]").inner_text()
    assert label == f"{row.reply.report['switch']['confidence']:.2f}"
    decoration = page.locator(".reply .by-draft").evaluate("element => getComputedStyle(element).textDecorationLine")
    assert decoration == "underline", "not by colour alone"
    colours = {
        who: page.locator(f".reply {where}").first.evaluate("element => getComputedStyle(element).color")
        for who, where in {"draft": ".by-draft", "base": ".text"}.items()
    }
    assert colours["draft"] != colours["base"]
    assert "took over after" in page.locator("#why-text").inner_text()
    assert page.locator("#chart canvas").count() == 1
    assert page.title().startswith("How do I boil an egg?")


def test_a_chat_is_there_after_reloading(window: Open) -> None:
    shown = window(opening())
    shown.ask("one?")
    assert shown.page.url.endswith("#chat=1")
    shown.page.reload()
    shown.page.locator(".reply").wait_for()
    assert shown.page.locator(".typed").inner_text() == "one?" and "answer." in shown.reply


def test_what_the_terminal_writes_appears(window: Open, chats: Store) -> None:
    shown = window(opening())
    shown.ask("one?")
    question = chats.messages.add(1, 2, "user", "two?")
    with chats.replies.begin(1, question, pair="demo", settings={}) as writer:
        writer.text(Text("From elsewhere", "base"))
        writer.flush()
        shown.page.evaluate("window.dispatchEvent(new Event('focus'))")
        shown.page.locator(".reply.writing").wait_for()
        assert "From elsewhere" in shown.reply
    shown.page.locator(".reply.writing").wait_for(state="detached")
    assert shown.page.locator(".ended").inner_text() == "stopped"


@pytest.mark.parametrize("how", ["Escape", "button"])
def test_a_reply_is_stopped_and_continued(window: Open, how: str) -> None:
    service = opening(asyncio.Event())
    shown = window(service)
    page = shown.page
    page.fill("#message", "one?")
    page.press("#message", "Enter")
    page.locator(".reply .switch").wait_for()
    if how == "Escape":
        page.keyboard.press("Escape")
    else:
        page.click("#send.stops")
    page.locator(".ended.cancelled").wait_for()
    assert service.left == 1 and "answer." in shown.reply
    said = ({"role": "user", "content": "one?"}, {"role": "assistant", "content": "Great answer."})
    service.steps = [Text(" More.", "base"), finished(" More.", messages=said)]
    page.get_by_label("Continue this reply").click()
    page.locator(".reply:not(.writing) .counts").wait_for()
    assert "answer. More." in shown.reply


def test_answers_again_and_edited_questions_are_branches(window: Open) -> None:
    shown = window(opening())
    page = shown.page
    shown.ask("one?")
    page.get_by_label("Answer again").click()
    page.get_by_text("2/2").wait_for()
    page.get_by_label("Previous reply").click()
    page.get_by_text("1/2").wait_for()
    page.press("#message", "ArrowUp")
    assert page.input_value("#message") == "one?" and page.is_visible("#editing")
    page.fill("#message", "another?")
    page.press("#message", "Enter")
    page.get_by_text("2/2").wait_for()
    assert page.locator(".typed").inner_text() == "another?"
    page.locator(".question").hover()
    page.get_by_label("Previous question").click()
    page.get_by_text("one?", exact=True).locator("visible=true").first.wait_for()


def test_chats_are_searched_renamed_exported_and_deleted(window: Open, chats: Store) -> None:
    shown = window(opening())
    page = shown.page
    shown.ask("Where is the whale?")
    page.click("#new")
    page.locator(".greeting").wait_for()
    shown.ask("Where is the goat?")
    page.keyboard.press("Control+k")
    page.keyboard.type("whale")
    page.locator("#chats mark").wait_for()
    page.locator("#chats .hit").click()
    page.locator(".typed", has_text="whale").wait_for()
    page.click("#menu summary")
    page.click("#rename")
    page.fill("#ask-field", "A whale")
    page.press("#ask-field", "Enter")
    page.locator("#title", has_text="A whale").wait_for()
    for kind in ("markdown", "json"):
        page.click("#menu summary")
        with page.expect_download() as download:
            page.click(f"#export-{kind}")
        assert Path(download.value.path()).read_text(encoding="utf-8") == chats.export(1, kind)
    page.click("#menu summary")
    page.click("#delete")
    page.locator(".greeting").wait_for()
    assert chats.chats.get(1).deleted is not None
    page.fill("#search", "")
    page.click("#bin")
    page.get_by_label("Restore A whale").click()
    page.get_by_text("The bin is empty.").wait_for()
    assert chats.chats.get(1).deleted is None


def test_settings_reach_the_reply(window: Open) -> None:
    service = opening()
    shown = window(service)
    page = shown.page
    page.locator("#threshold").focus()
    page.keyboard.press("End")
    assert page.locator("#threshold-value").inner_text() == "never"
    page.click("#settings-open")
    page.fill("#set-max_tokens", "7")
    page.fill("#set-temperature", "0.5")
    page.fill("#set-system", "Be brief.")
    page.get_by_role("button", name="Use").click()
    page.select_option("#model", "demo:base")
    shown.ask("one?")
    request = service.requests[-1]
    assert request.model == "demo:base" and request.prompt[0] == {"role": "system", "content": "Be brief."}
    assert request.settings == {"max_tokens": 7, "temperature": 0.5}, "one model alone follows no rule"
    page.select_option("#model", "demo")
    shown.ask("two?")
    assert service.requests[-1].settings == {"threshold": 2, "max_tokens": 7, "temperature": 0.5}
    page.reload()
    page.locator(".reply").first.wait_for()
    assert page.locator("#threshold-value").inner_text() == "never", "settings stay"


def test_the_slider_is_the_bound_of_the_servers_own_rule(window: Open) -> None:
    service = opening()
    service.defaults = ReplySettings(rule="entropy", entropy=0.5)
    shown = window(service)
    page = shown.page
    page.locator("#threshold-value", has_text="0.50 nats").wait_for()
    page.locator("#threshold").focus()
    page.keyboard.press("End")
    assert page.locator("#threshold-value").inner_text() == "0.00 nats"
    shown.ask("one?")
    assert service.requests[-1].settings == {"entropy": 0}
    page.locator("#threshold").focus()
    page.keyboard.press("Home")
    shown.ask("two?")
    assert service.requests[-1].settings == {"entropy": 100}
    page.select_option("#model", "demo:base")
    shown.ask("three?")
    assert service.requests[-1].settings == {}


@pytest.mark.parametrize(("rule", "said"), [("window", "With 0.80 the "), ("veto", "")])
def test_another_threshold_is_tried_where_the_servers_rule_has_one(window: Open, rule: Any, said: str) -> None:
    tokens = (ReplyToken(1, "Great ", "draft", 0.9, 0.7), ReplyToken(2, "answer.", "base", 0.8, None))
    end = finished("Great answer.", kept="Great ", switch=Switch(1, "veto", 0.99, 6, 0.95), tokens=tokens)
    service = opening(end)
    service.defaults = ReplySettings(rule=rule)
    shown = window(service)
    shown.ask("one?")
    page = shown.page
    page.click("#why-close")
    page.click("#why-toggle")
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert "refused a word" in page.locator("#why-text").inner_text()
    assert page.locator("#threshold").is_disabled() is (not said)
    assert page.locator("#what-if").inner_text().startswith(said) and bool(
        page.locator("#what-if").inner_text()
    ) is bool(said)


def test_three_replies_side_by_side(service: Service, window: Open, chats: Store) -> None:
    shown = window(service)
    shown.ask("What is the capital of France?")
    shown.page.click("#compare-open")
    shown.page.locator(".column footer", has_text="tokens").nth(2).wait_for()
    for mode, marks in (("base", 0), ("draft", 0), ("wsd", 1)):
        column = shown.page.locator(f".column.{mode}")
        assert column.locator(".text").inner_text() and column.locator(".switch").count() == marks
    shown.page.keyboard.press("Escape")
    assert not shown.page.is_visible("#compare") and len(chats.messages.of(1)) == 2


def test_a_comparison_that_is_closed_stops(window: Open) -> None:
    service = opening()
    shown = window(service)
    shown.ask("one?")
    service.steps = [*OPENING, asyncio.Event()]
    shown.page.click("#compare-open")
    shown.page.locator(".column .switch").nth(2).wait_for()
    shown.page.keyboard.press("Escape")
    while service.left < 3:
        shown.page.wait_for_timeout(10)


def test_how_far_a_prompt_is_read(window: Open) -> None:
    hold = asyncio.Event()
    shown = window(ScriptedService([Reading("gemma", 1024, 1912), hold, ANSWER]))
    shown.page.fill("#message", "one?")
    shown.page.press("#message", "Enter")
    shown.page.get_by_text("gemma reads 1,024 of 1,912 tokens").wait_for()
    bar = shown.page.locator("progress")
    assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("1024", "1912")
    shown.page.keyboard.press("Escape")
    shown.page.locator(".ended").wait_for()


def test_a_question_that_fails_goes_back_into_the_field(window: Open) -> None:
    service = ScriptedService([WsdError("no room for this")])
    shown = window(service)
    page = shown.page
    page.fill("#message", "a long question?")
    page.press("#message", "Enter")
    page.locator("#notice", has_text="no room for this").wait_for()
    assert page.get_by_role("alert").inner_text().strip() == "no room for this"
    page.locator("#send:not(.stops)").wait_for()
    assert page.input_value("#message") == "a long question?" and page.locator(".reply").count() == 0


def test_a_question_that_comes_back_keeps_what_was_typed_meanwhile(window: Open) -> None:
    hold = asyncio.Event()
    service = ScriptedService([hold, WsdError("no room")])
    page = window(service).page
    page.fill("#message", "one?")
    page.press("#message", "Enter")
    page.locator(".reply.writing").wait_for()
    page.keyboard.type("two?")
    assert service.loop is not None
    service.loop.call_soon_threadsafe(hold.set)
    page.locator("#notice", has_text="no room").wait_for()
    page.locator("#send:not(.stops)").wait_for()
    assert page.input_value("#message") == "one?\n\ntwo?"


def test_how_far_the_models_are_loaded(window: Open) -> None:
    service = opening()
    service.state, service.progress = "loading", {"pair": "demo", "role": "base", "fraction": 0.4}
    page = window(service).page
    page.get_by_text("loading demo: the base 40%").wait_for()
    service.state = "ready"
    page.locator("#loading").wait_for(state="hidden")


def test_a_server_with_a_key_asks_for_it_once(window: Open) -> None:
    shown = window(opening(), keys=["secret-key"])
    page = shown.page
    page.goto(shown.url)
    for key in ("wrong", "secret-key"):
        page.locator("#ask[open]").wait_for()
        assert page.get_attribute("#ask-field", "type") == "password"
        page.fill("#ask-field", key)
        page.press("#ask-field", "Enter")
    page.wait_for_selector("html[data-ready]")
    shown.ask("one?")
    page.reload()
    page.locator(".reply").wait_for()
    assert not page.is_visible("#ask")
    assert page.evaluate("[Object.keys(sessionStorage).length, JSON.stringify(localStorage).includes('secret')]") == [
        1,
        False,
    ]


# -- keyboard, screen readers, small screens -------------------------------------------------------------------------


def test_keys(window: Open) -> None:
    service = opening()
    shown = window(service)
    page = shown.page
    assert page.evaluate("document.activeElement.id") == "message"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert page.input_value("#message") == "one\ntwo"
    page.keyboard.press("Enter")
    page.locator(".reply:not(.writing) .tools").wait_for()
    assert service.requests[-1].prompt[-1]["content"] == "one\ntwo"
    page.keyboard.press("Alt+Shift+R")
    page.get_by_text("2/2").wait_for()
    page.keyboard.press("Control+/")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+Shift+W")
    assert not page.is_visible("#why")
    page.keyboard.press("Alt+Shift+N")
    page.locator(".greeting").wait_for()


def test_everything_can_be_reached_and_has_a_name(window: Open) -> None:
    shown = window(opening())
    shown.ask("one?")
    page = shown.page
    nameless = page.evaluate(NAMELESS)
    assert nameless == []
    page.evaluate("document.querySelector('.skip').focus()")
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    order = [
        reached.index(name)
        for name in ("new", "search", "model", "settings-open", "Answer again", "message", "threshold")
    ]
    assert order == sorted(order), reached


def test_screen_readers_hear_states_and_no_tokens(window: Open) -> None:
    shown = window(opening())
    page = shown.page
    page.evaluate(HEARD)
    shown.ask("one?")
    heard = page.evaluate("window.heard")
    assert heard[:2] == ["Sent", "The draft writes"] and heard[-1] == "The reply is complete"
    assert "The base continues, 0.91" in heard and not [line for line in heard if "Great" in line]
    assert page.get_attribute("#state", "aria-live") == "polite" and page.get_attribute("#log", "aria-live") == "off"
    assert page.locator(".reply .switch .hidden").text_content() == "[the base continues, confidence 0.91]"


SIZES = [(1280, 800), (768, 1024), (360, 740)]


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_is_cut_off(window: Open, size: tuple[int, int], scheme: str) -> None:
    text = (
        "`"
        + "x" * 200
        + "`\n\n| a | b |\n|-|-|\n| "
        + "y" * 90
        + " | z |\n\n```python\nprint('"
        + "z" * 200
        + "')\n```\n"
    )
    shown = window(written(text), viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = shown.page
    shown.ask("a" * 120)
    wide = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('#scroller').scrollWidth]")
    assert max(wide) <= size[0]
    for name in ("#message", "#send", "#model", "#settings-open", "#threshold"):
        box = page.locator(name).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1], name
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark.removeprefix("rgb(").rstrip(")").split(","))) < 200) == (scheme == "dark")
    if size[0] < 800:
        assert not page.locator("#search").is_visible()
        page.click("#list-toggle")
        page.locator("#search").wait_for()
        page.locator("#chats .open").first.click()
        page.locator("#search").wait_for(state="hidden")


def test_a_long_reply_is_drawn_at_most_once_a_frame(window: Open) -> None:
    steps: list[Step] = [Text(f"Paragraph {number} with **some** words.\n\n", "base") for number in range(300)]
    whole = "".join(step.text for step in steps if isinstance(step, Text))
    page = window(ScriptedService([*steps, finished(whole)])).page
    page.evaluate(CHANGES)
    page.fill("#message", "one?")
    page.press("#message", "Enter")
    page.locator(".reply:not(.writing) .tools").wait_for()
    assert page.locator(".reply .text p").count() == 300
    assert page.evaluate("window.changes <= window.frames + 5")


def test_only_the_end_of_a_reply_is_drawn_again(window: Open) -> None:
    hold = asyncio.Event()
    steps: list[Step] = [Text(f"Paragraph {number} with **some** words.\n\n", "base") for number in range(40)]
    service = ScriptedService([*steps[:20], hold, *steps[20:], asyncio.Event()])
    page = window(service).page
    page.fill("#message", "one?")
    page.press("#message", "Enter")
    page.get_by_text("Paragraph 19").wait_for()
    page.evaluate("document.querySelectorAll('.reply .text p').forEach((one) => { one.dataset.early = 'yes'; })")
    assert service.loop is not None
    service.loop.call_soon_threadsafe(hold.set)
    page.get_by_text("Paragraph 39").wait_for()
    assert page.locator("[data-early]").count() >= 18
    page.keyboard.press("Escape")
    page.locator(".ended").wait_for()
