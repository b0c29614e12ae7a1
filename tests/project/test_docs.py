"""The README and the pages in docs/ are true: what they show is printed, what they name is there, the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import docs_site
import pytest
from serving import listening, private_folders
from wsd_chat.commands import COMMANDS

from wsd_local.cli.reference import reference
from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.settings import LoadSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")])
SERVER = "http://127.0.0.1:8080"
"""Where the server listens on our pages."""
ANSWERS = {"How do I boil an egg?": "boil", "capital of France": "Paris"}
"""What our pages ask, and a word of the answer."""
TRANSIENT = re.compile(r"\x1b\[\?25l.*?\x1b\[\?25h\r\x1b\[1A\x1b\[2K", re.DOTALL)
"""A progress display that has erased itself."""


def name(page: Path) -> str:
    """The page as it is called in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of one language, without the indentation that a list or a tab gives them."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def examples(page: Path) -> Iterator[tuple[str, str]]:
    """Each command of the page's sessions, and what it is said to print."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def printed(command: str, folder: Path) -> str:
    """What a shell command shows on a wide terminal, its standard error included."""
    pty = pytest.importorskip("pty", reason="expected: no pseudo-terminals here")
    terminal, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "1000", "NO_COLOR": "1", "WSD_LOCAL_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-c", command], cwd=folder, stdin=subprocess.DEVNULL, stdout=child, stderr=child, env=environment
    ):
        os.close(child)
        shown = b""
        while True:
            try:
                some = os.read(terminal, 4096)
            except OSError:  # the other side is closed
                break
            if not some:
                break
            shown += some
        os.close(terminal)
    text = TRANSIENT.sub("", shown.decode())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r\n", "\n")


def matches(shown: str, text: str) -> bool:
    """Whether the text is what a page shows, where `…` stands for anything."""
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    pattern = ".*".join(re.escape(part) for part in shown.strip("\n").split("…"))
    return re.fullmatch(pattern, "\n".join(lines), re.DOTALL) is not None


SHOWN = [page for page in PAGES if blocks(page, "console")]
AT_ONCE = ("README.md", "first-reply.md", "scripts.md")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=name(page), marks=() if page.name in AT_ONCE else pytest.mark.slow) for page in SHOWN],
)
def test_what_a_page_shows_is_printed(page: Path, tmp_path: Path) -> None:
    tried = 0
    for command, output in examples(page):
        text = printed(command, tmp_path)
        assert matches(output, text), f"$ {command}\n{text}\n--- and not\n{output}"
        tried += 1
    assert tried


@pytest.mark.parametrize("page", [page for page in PAGES if "wsd-local" in page.read_text(encoding="utf-8")], ids=name)
def test_options_on_a_page_exist(page: Path) -> None:
    known = {command.name: {name for one in command.options for name in one.names} for command in reference()}
    shown = "\n".join([*blocks(page, "sh"), *(command for command, _ in examples(page))])
    unknown = []
    for line in re.findall(r"(?:wsd-local|wsd-chat)(?: [^|;#\n]*)?", shown):
        words = line.replace("wsd-chat", "wsd-local chat").split()
        command = next((" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in known), None)
        given = {word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)}
        meant = {"--help", "--version", "--install-completion", "--treshold"}  # the last is an example of a slip
        if command is None or given - known[command] - meant:
            unknown.append(line)
    assert unknown == []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server of the embedded pair."""
    with private_folders(tmp_path_factory.mktemp("served")):
        desk = Desk(["demo"], loading=LoadSettings(threads=1))
        desk.start()
        with listening(create_app(desk)) as url:
            yield url
        desk.close()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_the_python_of_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str], served: str) -> None:
    """The embedded pair knows what it is asked on our pages; those about the server ask one."""
    codes = blocks(page, "python")
    for code in codes:
        names: dict[str, object] = {}
        exec(code.replace(SERVER, served), names)
    shown, out = "".join(codes), capsys.readouterr().out
    known = [answer for question, answer in ANSWERS.items() if question in shown]
    assert known and all(answer in out for answer in known)


def test_the_python_page_s_session_remembers() -> None:
    code = next(code for code in blocks(ROOT / "docs" / "python.md", "python") if "session" in code)
    names: dict[str, object] = {}
    exec(code, names)
    chat = names["chat"]
    answers = [one["content"] for one in chat.messages if one["role"] == "assistant"]  # type: ignore[attr-defined]
    assert "Paris" in answers[0] and "Madrid" in answers[1]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    addresses = [one for one in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in one]
    assert [one for one in addresses if not (page.parent / one).exists()] == []


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert blocks(ROOT / "README.md", "sh")[0].split()[:2] == ["make", "run"]
    assert len(re.findall(r"^!\[", text, re.MULTILINE)) == 2
    assert "@inproceedings{" in text and "2506.07434" in text


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8")))
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}


def test_the_reference_is_what_the_program_prints() -> None:
    assert docs_site.CLI_PAGE.read_text(encoding="utf-8") == docs_site.cli_page(), "run make docs"


def test_the_site_builds_and_loads_nothing_from_elsewhere() -> None:
    assert docs_site.build() == []


def test_what_would_be_loaded_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<script src="https://x.org/a.js"></script><img src="b.png"><a href="https://x.org">'
    )
    (tmp_path / "a.css").write_text("body { background: url(//x.org/a.png) }")
    (tmp_path / "b.css").write_text("p { background: url(data:image/png;base64,AA) }")
    assert docs_site.faults(tmp_path) == [
        "a.html loads https://x.org/a.js",
        "a.html: b.png has no alt text",
        "a.css loads //x.org/a.png",
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`((?:wsd_local|tests|tui|models|docs)/[\w./-]*)`", text)
    assert [one for one in named if not (ROOT / one).exists() and one != "wsd_local/server/"] == []


def test_the_architecture_lists_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `wsd_local/(\w+)/`", text, re.MULTILINE))
    assert listed == {folder.parent.name for folder in (ROOT / "wsd_local").glob("*/__init__.py")}


def test_keys_and_slash_commands_of_the_chat_page_exist() -> None:
    text = (ROOT / "docs" / "guide" / "chat.md").read_text(encoding="utf-8").partition("## Where chats")[0]
    bound = {key for command in COMMANDS for key in command.keys.split(",")}
    named = {key.lower() for key in re.findall(r"\b(?:(?:Alt|Ctrl)\+\w+|F\d+)", text)}
    assert named - {"ctrl+j", "alt+enter", "ctrl+p"} <= bound
    slashes = set(re.findall(r"`/(\w+)`", text))
    assert slashes and slashes <= {command.slash for command in COMMANDS}


def test_the_page_on_models_lists_every_pair() -> None:
    text = (ROOT / "docs" / "guide" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*) \|", text.partition("The catalog's pairs")[2], re.MULTILINE)
    catalog = tomllib.loads((ROOT / "models" / "catalog.toml").read_text(encoding="utf-8"))
    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == set(catalog["pairs"])
