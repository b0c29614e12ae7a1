"""Known vulnerabilities of what is installed for this project: `python tests/audit.py`, a part of `make lint`.

Contract: asks `pip-audit` about the installed versions of the project's dependencies, those of its extras included. A
known vulnerability is a failure, unless `IGNORED` says why it does not concern this project. Where the database cannot
be reached, or knows none of the packages, that is said and is no failure: nothing here needs a network. pip and
setuptools are the environment's, and are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IGNORED: dict[str, str] = {}
"""Identifiers of vulnerabilities that do not concern this project, each with the reason."""

_PROJECT = "wsd-local"
_EXTRAS = frozenset({"convert", "dev", "report"})
_OF_THE_ENVIRONMENT = ("pip", "setuptools")
_PATIENCE = 300.0


def main() -> int:
    """Ask, tell, and return an exit code."""
    packages = installed()
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("".join(f"{name}=={number}\n" for name, number in sorted(packages.items())))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(wanted), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            return _tell([f"no answer within {_PATIENCE:.0f} s: nothing was audited"], 0)
    return _tell(*verdict(done.stdout, done.stderr))


def verdict(out: str, error: str) -> tuple[list[str], int]:
    """What the output of pip-audit comes to: lines, and an exit code."""
    try:
        rows: list[dict[str, Any]] = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        cause = next((line.strip() for line in reversed(error.splitlines()) if line.strip()), "it said nothing")
        return [f"the database cannot be asked, nothing was audited: {cause[:200]}"], 0
    found = [(row, vulnerability) for row in rows for vulnerability in row.get("vulns", ())]
    lines, code = [], 0
    for row, vulnerability in found:
        names = {vulnerability["id"], *vulnerability.get("aliases", ())}
        reason = next((IGNORED[name] for name in names if name in IGNORED), None)
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
        what = f"{row['name']} {row['version']}: {vulnerability['id']}, mended in {fixed}"
        lines.append(what if reason is None else f"{what}; ignored: {reason}")
        code = code or int(reason is None)
    unknown = [row["name"] for row in rows if "skip_reason" in row]
    if unknown:
        lines.append(f"{len(unknown)} of {len(rows)} packages could not be audited: the database does not know them")
    return [*lines, f"{len(rows) - len(unknown)} packages audited, {len(found)} known vulnerabilities"], code


def installed() -> dict[str, str]:
    """Versions of the project's dependencies, and of theirs, that are installed."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(_PROJECT, _EXTRAS)]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = one = waiting.pop()
        if one in done or name in _OF_THE_ENVIRONMENT:
            continue
        done.add(one)
        try:
            found[name], needs = version(name), map(Requirement, requires(name) or [])
        except PackageNotFoundError:
            continue
        for need in needs:
            wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if wanted:
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    found.pop(_PROJECT, None)
    return found


def _tell(lines: list[str], code: int) -> int:
    for line in lines:
        print(f"audit: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
