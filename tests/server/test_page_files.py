"""The page's files: served with their types, unchanged copies of what others wrote, and nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from serving import ScriptedService, listening

from wsd_local.server.app import create_app
from wsd_local.server.page_files import FOLDER, MANIFEST, TYPES, VENDORED
from wsd_local.store import Store

OWN = sorted(path for path in FOLDER.rglob("*") if path.is_file() and VENDORED not in path.parents)
LIBRARIES = json.loads(MANIFEST.read_text(encoding="utf-8"))["libraries"]


@pytest.fixture(scope="module")
def site() -> Iterator[httpx.Client]:
    """A client of a server with the page."""
    with (
        Store(":memory:") as store,
        listening(create_app(ScriptedService(), store=store)) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


@pytest.mark.parametrize("path", [path.relative_to(FOLDER).as_posix() for path in sorted(FOLDER.rglob("*.*"))])
def test_every_file_is_served_with_its_type(site: httpx.Client, path: str) -> None:
    answer = site.get(f"/page/{path}")
    assert answer.content == (FOLDER / path).read_bytes()
    assert answer.headers["content-type"] == TYPES[Path(path).suffix]
    again = site.get(f"/page/{path}", headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert again.status_code == 304 and not again.content
    assert site.get(f"/page/{path}", headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_page_may_do_nothing_but_what_it_needs(site: httpx.Client) -> None:
    answer = site.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert {policy[f"{what}-src"] for what in ("script", "style", "img", "connect")} == {"'self'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["referrer-policy"] == "no-referrer"
    head = site.head("/")
    assert head.status_code == 200 and not head.content and head.headers["etag"] == answer.headers["etag"]
    assert site.get("/favicon.ico").headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/nothing.js",
        "/page/../page_api.py",
        "/page/%2e%2e/page_api.py",
        "/page/vendor",
        "/page//etc/passwd",
    ],
)
def test_nothing_else_is_served(site: httpx.Client, path: str) -> None:
    assert site.get(path).status_code == 404
    assert site.post("/").status_code == 405


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library["name"])
def test_vendored_files_are_those_of_the_manifest(library: dict[str, object]) -> None:
    files = library["files"]
    assert isinstance(files, list) and re.fullmatch(r"\d+\.\d+\.\d+", str(library["version"]))
    for one in files:
        assert hashlib.sha256((VENDORED / one["file"]).read_bytes()).hexdigest() == one["sha256"], one["file"]
    licences = [VENDORED / one["file"] for one in files if "LICENSE" in one["file"]]
    assert licences and all("ermission" in path.read_text(encoding="utf-8") for path in licences)


def test_the_manifest_names_every_vendored_file() -> None:
    named = {one["file"] for library in LIBRARIES for one in library["files"]}
    assert named == {path.name for path in VENDORED.iterdir()} - {MANIFEST.name}


class _Sources(HTMLParser):
    """What a page loads, and scripts and styles that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [str(values[name]) for name in ("src", "href", "action") if name in values]
        self.inline += [f"{tag} {name}" for name in values if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)


def test_index_loads_its_own_files_and_holds_no_script() -> None:
    sources = _Sources()
    sources.feed((FOLDER / "index.html").read_text(encoding="utf-8"))
    assert not sources.inline
    loaded = {source for source in sources.found if not source.startswith("#")}
    assert loaded and all((FOLDER / source.removeprefix("/page/")).is_file() for source in loaded)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_own_files_name_no_other_place(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)
    for module in re.findall(r'(?:from|import) "([^"]+)"', text):
        assert (path.parent / module).is_file(), module
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


@pytest.mark.parametrize("path", [path for path in OWN if path.suffix == ".js"], ids=lambda path: path.name)
def test_modules_begin_with_what_they_are(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("/**") and len(lines) <= 400
