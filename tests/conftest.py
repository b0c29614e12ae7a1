"""Shared fixtures, and the rule that CI accepts no skip that nobody expected."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from makers import f32_copy, kin_pair
from marking import mark
from summary import Tell, skip_reason, write_summary

from wsd_local.paths import demo_dir

pytest_plugins = ("real_models",)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the files of the person who runs it, or finds what another test left but in the cache."""
    own = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("WSD_LOCAL_DATA", str(own / "data"))
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(own / "config.toml"))
    monkeypatch.setenv("HF_HOME", str(own / "hub"))
    monkeypatch.setattr("wsd_local.runtime.prompt_cache.cache_dir", lambda: own / "kept")


@pytest.fixture(scope="session")
def demo_q8() -> tuple[Path, Path]:
    """The embedded pair as it is shipped."""
    return demo_dir() / "draft-q8_0.gguf", demo_dir() / "base-q8_0.gguf"


@pytest.fixture(scope="session")
def demo_f32(tmp_path_factory: pytest.TempPathFactory, demo_q8: tuple[Path, Path]) -> tuple[Path, Path]:
    """F32 copies of the embedded pair: their logits do not depend on the shape of a batch."""
    folder = tmp_path_factory.mktemp("f32")
    draft, base = (f32_copy(path, folder / path.name) for path in demo_q8)
    return draft, base


@pytest.fixture(scope="session")
def kin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two small random models that resemble each other: windows pass at many places."""
    return kin_pair(tmp_path_factory.mktemp("kin"))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Markers that follow from what a test uses."""
    mark(item)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module skipped as a whole fails CI like a test."""
    if report.skipped and os.environ.get("CI") and not skip_reason(report).startswith("expected: "):
        raise pytest.UsageError(f"{report.nodeid} was skipped, and nobody expected it: {skip_reason(report)}")


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Lines for the summary, also from tests that pass."""

    def report(*lines: str) -> None:
        record_property("reported", "\n  ".join(lines))

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests wanted to tell, and why some were skipped."""
    write_summary(terminalreporter)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = (yield).get_result()  # type: ignore[attr-defined]
    if report.skipped and not hasattr(report, "wasxfail") and not skip_reason(report).startswith("expected: "):
        report.sections.append(("unexpected skip", item.nodeid))
        if os.environ.get("CI"):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and nobody expected it: {report.longrepr}"
