"""The page about OpenAI's protocol lists the parameters that the server takes, no more and no fewer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsd_local.server.body import Body
from wsd_local.server.openai_chat import ChatBody
from wsd_local.server.openai_completions import CompletionBody
from wsd_local.server.openai_response_body import ResponseBody

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "openai.md").read_text(encoding="utf-8")


def named(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def supported(column: int) -> set[str]:
    """Parameters that the table marks for an endpoint."""
    table = PAGE.split("| parameter |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    return {name for row in rows if row[column] == "yes" for name in named(row[0])}


def section(title: str) -> str:
    return PAGE.split(f"### {title}\n")[1].split("\n## ")[0].split("\n### ")[0]


@pytest.mark.parametrize(("body", "column"), [(ChatBody, 1), (CompletionBody, 2), (ResponseBody, 3)])
def test_every_parameter_is_documented(body: type[Body], column: int) -> None:
    fields = {field.alias or name for name, field in body.model_fields.items()}
    others = named(section("Without effect")) | named(section("Refused")) | {"cache_prompt", "store"}
    assert supported(column) <= fields
    assert fields - supported(column) <= others


def test_what_is_listed_without_effect_or_as_refused_exists() -> None:
    fields = {name for body in (ChatBody, CompletionBody, ResponseBody) for name in body.model_fields}
    assert named(section("Refused")) <= fields
    values = {"auto", "default", "true", "strict", "name", "enable_thinking"}
    assert named(section("Without effect")) - values <= fields
