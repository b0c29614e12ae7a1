"""Builds the documentation's site.

python tests/docs_site.py            # docs/cli.md anew, then the site in build/docs; a warning is an error
python tests/docs_site.py --check    # the same, but docs/cli.md must be what the program prints

The site loads nothing from anywhere else: no fonts, scripts or images of other hosts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from wsd_local.cli.reference import Option, reference

ROOT = Path(__file__).parents[1]
CLI_PAGE = ROOT / "docs" / "cli.md"
SITE = ROOT / "build" / "docs"

INTRODUCTION = """\
# Command line

Every command, as its `--help` prints it. `wsd-chat` is `wsd-local chat` under a name of its own. This holds everywhere:

- Standard output carries the answer and nothing else; progress, notices and errors go to standard error.
- An error is one line. `--debug` adds the traceback.
- [Exit codes](guide/troubleshooting.md#exit-codes) say what kind of failure it was.
- Options override environment variables, and those override [`config.toml`](guide/configuration.md).
"""


def cell(text: str) -> str:
    """Text as a cell of a table."""
    return " ".join(text.split()).replace("|", " or ")


def row(option: Option) -> str:
    """An option as a row of a table: its names and the kind of its value, what it does, its default."""
    kind = (
        "" if option.choices or option.is_positional else (option.type or "").replace("|CHOICE", "").replace("...", "")
    )
    names = ", ".join(f"`{name}`" for name in option.names) + (f" {cell(kind)}" if kind else "")
    text, _, words = option.help.partition("[default: ")
    if option.choices:
        text = f"{text.strip().removesuffix('.')}: {', '.join(f'`{one}`' for one in option.choices)}"
    default = f"`{option.default}`" if option.default is not None else words.removesuffix("]")
    return f"| {names} | {cell(text).removesuffix('.')} | {'required' if option.is_required else default} |"


def cli_page() -> str:
    """`docs/cli.md`, read off the program."""
    parts = [INTRODUCTION]
    for command in reference():
        parts.append(f"{'##' if command.name.count(' ') < 2 else '###'} {command.name}\n\n{command.help.strip()}\n")
        tables: dict[str, list[str]] = {}
        for option in command.options:
            tables.setdefault(option.heading, []).append(row(option))
        for heading, rows in tables.items():
            parts.append("\n".join([f"| {heading} | | default |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


class Loads(HTMLParser):
    """What a page loads by itself, and its images without a text for those who do not see them."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.mute: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses of scripts, styles and images."""
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.addresses.append(given.get("href") or "")
        elif tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(given.get("src") or "")
        elif tag in ("image", "use"):
            self.addresses.append(given.get("href") or given.get("xlink:href") or "")
        if tag == "img" and not given.get("alt"):
            self.mute.append(given.get("src") or "")


def faults(site: Path) -> list[str]:
    """Files of the site that would load something from elsewhere, and images without a description."""
    found = []
    for page in sorted(site.rglob("*.html")):
        reader = Loads()
        reader.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.name} loads {one}" for one in reader.addresses if re.match(r"(https?:)?//", one)]
        found += [f"{page.name}: {one} has no alt text" for one in reader.mute]
    for file in sorted([*site.rglob("*.css"), *site.rglob("*.svg")]):
        text = file.read_text(encoding="utf-8")
        found += [f"{file.name} loads {one}" for one in re.findall(r"""url\(["']?((?:https?:)?//[^"')]+)""", text)]
        found += [f"{file.name} imports" for _ in re.findall(r"@import", text)]
    return found


def build() -> list[str]:
    """Build the site anew, and return what is wrong with it."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, encoding="utf-8")
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode or "No issues found" not in said:
        return [said.partition("Traceback")[0]]
    return [line for line in said.splitlines() if line.startswith("griffe")] + faults(SITE)


def main() -> int:
    """Write or check the page of the command line, and build the site."""
    page = cli_page()
    if "--check" in sys.argv[1:]:
        if CLI_PAGE.read_text(encoding="utf-8") != page:
            print(f"{CLI_PAGE.relative_to(ROOT)} is not what the program prints: run make docs", file=sys.stderr)
            return 1
    else:
        CLI_PAGE.write_text(page, encoding="utf-8", newline="\n")
    wrong = build()
    print("\n".join(wrong) or f"{SITE / 'index.html'}", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
