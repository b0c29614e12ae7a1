"""`wsd-local eval report`: its figures recounted by hand, damaged files, and pages that need nothing else."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command_line import wsd, wsd_process
from hypothesis import example, given, settings
from hypothesis import strategies as st
from page_reader import PageReader

from wsd_local.core.limits import Counts
from wsd_local.errors import UsageError, WsdError
from wsd_local.reports.charts import bars
from wsd_local.reports.runs import (
    ReplyFigures,
    RunFile,
    Summary,
    binned,
    bins,
    differences,
    names,
    read_run,
    read_runs,
    summary,
)
from wsd_local.reports.runs_page import run_tables, runs_page
from wsd_local.runtime.pair import load
from wsd_local.runtime.reply import Part, Reply, Switch, Timings

QUESTIONS = ["What is the capital of France?", "How do I boil an egg?", "What is the plural of mouse?"]
RUNS: dict[str, dict[str, Any]] = {
    "wsd": {},
    "late": {"threshold": 0.95},
    "draft": {"mode": "draft"},
    "base": {"mode": "base"},
    "fixed": {"mode": "fixed:2"},
}


def report(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return wsd("eval", "report", *map(str, arguments), env={**os.environ, **environment})


def complains(done: subprocess.CompletedProcess[bytes], *words: str, code: int = 2) -> None:
    """One line on standard error with these words, nothing on standard output."""
    error = done.stderr.decode()
    assert done.returncode == code, error
    assert done.stdout == b""
    assert len(error.strip().splitlines()) == 1, error
    assert all(word in error for word in words), error


def line(index: int = 0, **changes: Any) -> dict[str, Any]:
    """A reply as a run file holds it; `a__b` changes the field `b` of `a`."""
    reply = Reply(
        messages=({"role": "user", "content": "hi"},),
        text="Hello! There.",
        finish_reason="stop",
        draft=Part("small", "Hello!", 7, 9),
        base=Part("large", " There.", 3),
        switch=Switch(6, "threshold", 0.9, 6, 0.8),
        timings=Timings(first_text_s=0.1, total_s=0.5, draft_tokens_per_s=100.0, base_tokens_per_s=20.0),
        tokens=(),
        discarded="",
        counts=Counts(),
        provenance={"version": "1", "settings": {"window": 6, "threshold": 0.8, "seed": index}},
    )
    values = {"index": index, "id": f"q{index}", "turn": 0, **reply.as_dict()}
    for name, value in changes.items():
        part, _, field = name.partition("__")
        (values[part] if field else values)[field or part] = value
    return values


def written(path: Path, *lines: dict[str, Any] | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in lines))
    return path


@pytest.fixture(scope="module")
def real_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of the embedded pair's own replies, in five modes."""
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    with load("demo", threads=1) as pair:
        for name, values in RUNS.items():
            replies = [pair.reply(question, max_tokens=120, **values) for question in QUESTIONS]
            lines = [{"index": i, "id": str(i), "turn": 0, **reply.as_dict()} for i, reply in enumerate(replies)]
            paths.append(written(folder / f"{name}.jsonl", *lines))
    return paths


def test_a_run_takes_the_time_in_which_any_of_its_replies_was_in_progress(tmp_path: Path) -> None:
    """Two at once for 0.5 s, a pause, one of 0.5 s that ends later, and one that does not say when it was."""
    whens = (1000.5, 1000.6, 2000.0, None)
    lines = [line(i, **({} if when is None else {"finished_at": when})) for i, when in enumerate(whens)]
    for order in (lines, lines[::-1]):
        found = summary(read_runs([written(tmp_path / "run.jsonl", *order)])[0])
        assert [found.total_s, found.wall_s] == pytest.approx([2.0, 0.6 + 0.5 + 0.5])
        assert found.tokens_per_s == pytest.approx(4 * 10 / 1.6)
        assert found.base_tokens_per_s == 20.0
    broken = report(written(tmp_path / "run.jsonl", line(finished_at="yesterday")))
    assert broken.returncode == 2 and b"finished_at" in broken.stderr


# -- real replies --------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_replies(real_runs: list[Path]) -> None:
    done = report("--json", *real_runs)
    assert done.returncode == 0 and done.stderr == b""
    found = {run["name"]: run for run in json.loads(done.stdout)["runs"]}
    assert list(found) == list(RUNS)
    for path in real_runs:
        replies = [json.loads(one) for one in path.read_text(encoding="utf-8").splitlines()]
        run = found[path.stem]
        kept = sum(reply["draft"]["kept_tokens"] for reply in replies)
        written_by_base = sum(reply["base"]["tokens"] for reply in replies)
        times = [reply["timings"]["total_s"] for reply in replies]
        assert run["file"] == str(path)
        assert (run["replies"], run["failed"]) == (len(QUESTIONS), 0)
        assert run["reasons"] == Counter(reply["switch"]["reason"] for reply in replies)
        assert run["finish_reasons"] == Counter(reply["finish_reason"] for reply in replies)
        places = Counter(reply["switch"]["index"] for reply in replies)
        assert run["without_switch"] == places.pop(None, 0)
        assert dict(run["switch_positions"]) == places
        assert (run["draft_tokens"], run["base_tokens"]) == (kept, written_by_base)
        assert run["draft_share"] == kept / (kept + written_by_base)
        assert run["drafted_tokens"] == sum(reply["draft"]["drafted_tokens"] for reply in replies)
        words = [len(reply["text"].split()) for reply in replies]
        assert (run["median_words"], run["empty"]) == (statistics.median(words), words.count(0))
        assert run["total_s"] == pytest.approx(sum(times))
        assert run["median_s"] == statistics.median(times)
        assert run["wall_s"] == pytest.approx(sum(times)), "one after the other"
        assert run["tokens_per_s"] == pytest.approx((kept + written_by_base) / sum(times))
        for role in ("draft", "base"):
            rates = [reply["timings"][f"{role}_tokens_per_s"] for reply in replies]
            known = [rate for rate in rates if rate is not None]
            assert run[f"{role}_tokens_per_s"] == (statistics.median(known) if known else None)
            assert run[f"{role}_models"] == sorted({reply[role]["model"] for reply in replies} - {None})
    assert found["draft"]["base_models"] == found["base"]["draft_models"] == []
    assert found["draft"]["draft_share"] == 1 and found["base"]["draft_share"] == 0
    assert found["wsd"]["mean_switch"] < found["late"]["mean_switch"]


def test_what_differs_is_named_and_what_does_not_is_not(real_runs: list[Path]) -> None:
    found = json.loads(report("--json", *real_runs).stdout)["differences"]
    assert found == {
        "threshold": [[0.8], [0.95], [0.8], [0.8], [0.8]],
        "mode": [["wsd"], ["wsd"], ["draft"], ["base"], ["fixed:2"]],
    }
    assert json.loads(report("--json", real_runs[0]).stdout)["differences"] == {}


def test_the_tables_name_runs_and_figures(real_runs: list[Path]) -> None:
    done = report(*real_runs[:2])
    shown = done.stdout.decode()
    assert done.returncode == 0 and done.stderr == b""
    for words in ("Runs", "Switch positions", "What differs", "wsd", "late", "0.95", "tokens/s, base", "finish: stop"):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "What differs" not in report(real_runs[0]).stdout.decode()


def test_the_page_shows_every_chart_and_is_the_same_each_time(real_runs: list[Path], tmp_path: Path) -> None:
    pages = []
    for seed in ("1", "2"):
        page = tmp_path / f"report{seed}.html"
        done = report(*real_runs, "--html", page, PYTHONHASHSEED=seed)
        assert done.returncode == 0
        assert done.stderr.decode().splitlines() == [f"wsd-local: written: {page}"]
        pages.append(page.read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    page_read = PageReader(pages[0])
    charts = [
        "Where the base takes over",
        "Why the models changed places",
        "Who wrote the replies",
        "Time for a reply",
        "Speed of each model",
        "How the replies ended",
    ]
    assert page_read.headings == ["Runs", "What differs", *charts]
    assert page_read.tags.count("svg") == len(charts)
    assert set(RUNS) <= set(page_read.drawn) and set(RUNS) <= set(page_read.cells)
    assert "prefers-color-scheme:dark" in pages[0]


@pytest.mark.parametrize("name", ["draft", "base"])
def test_a_run_of_one_model_alone_can_be_shown(real_runs: list[Path], name: str, tmp_path: Path) -> None:
    path = next(path for path in real_runs if path.stem == name)
    done = report(path, "--html", tmp_path / "page.html")
    assert done.returncode == 0
    assert "100%" in done.stdout.decode()
    assert "Where the base takes over" not in PageReader((tmp_path / "page.html").read_text("utf-8")).headings


# -- arithmetic ----------------------------------------------------------------------------------------------

AMOUNTS = st.none() | st.floats(0, 1e6)
RECORDS = st.lists(
    st.builds(
        ReplyFigures,
        index=st.none() | st.integers(0, 700),
        reason=st.sampled_from(["threshold", "draft_end", "none", "cancelled"]),
        finish=st.sampled_from(["stop", "length", "cancelled"]),
        kept=st.integers(0, 700),
        written=st.integers(0, 2000),
        drafted=st.integers(0, 700),
        total_s=st.floats(0, 1e6),
        first_text_s=AMOUNTS,
        draft_rate=AMOUNTS,
        base_rate=AMOUNTS,
    )
)


def run_of(records: list[ReplyFigures], name: str = "run") -> Summary:
    return summary(RunFile(name, Path(f"{name}.jsonl"), tuple(records), {}))


@settings(deadline=None)
@given(RECORDS)
@example([ReplyFigures(None, "threshold", "stop", 0, 2, 0, 1, total_s=1e-308)])
def test_shares_add_up_and_everything_is_counted_once(records: list[ReplyFigures]) -> None:
    found = run_of(records)
    assert found.replies == len(records)
    assert sum(count for _, count in found.switch_positions) + found.without_switch == len(records)
    assert sum(found.reasons.values()) == sum(found.finish_reasons.values()) == len(records)
    assert found.draft_tokens == sum(record.kept for record in records)
    assert found.base_tokens == sum(record.written for record in records)
    if found.draft_share is not None:
        assert 0 <= found.draft_share <= 1
        assert found.draft_share * (found.draft_tokens + found.base_tokens) == pytest.approx(found.draft_tokens)
    else:
        assert found.draft_tokens + found.base_tokens == 0
    if records:
        assert found.mean_s is not None
        assert found.mean_s * len(records) == pytest.approx(found.total_s)
    json.dumps(found.as_dict(), allow_nan=False)


@settings(deadline=None)
@given(RECORDS, st.randoms())
def test_the_order_of_the_replies_does_not_matter(records: list[ReplyFigures], chance: Any) -> None:
    shuffled = records[:]
    chance.shuffle(shuffled)
    assert run_of(shuffled) == run_of(records)


@settings(deadline=None)
@given(RECORDS, RECORDS)
def test_two_runs_joined_have_the_counts_of_both(one: list[ReplyFigures], other: list[ReplyFigures]) -> None:
    first, second, both = run_of(one), run_of(other), run_of(one + other)
    assert Counter(dict(both.switch_positions)) == Counter(dict(first.switch_positions)) + Counter(
        dict(second.switch_positions)
    )
    assert Counter(both.reasons) == Counter(first.reasons) + Counter(second.reasons)
    assert both.draft_tokens == first.draft_tokens + second.draft_tokens
    assert both.total_s == pytest.approx(first.total_s + second.total_s)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 10**12), st.integers(1, 9), max_size=9), max_size=4), st.integers(2, 30))
def test_ranges_are_few_and_hold_every_position_once(runs: list[dict[int, int]], most: int) -> None:
    ranges = bins((position for run in runs for position in run), most)
    assert len(ranges) <= most
    assert all(after[0] == before[1] + 1 for before, after in pairwise(ranges))
    assert len({last - first for first, last in ranges}) <= 1
    for run in runs:
        assert sum(binned(run.items(), ranges)) == sum(run.values())


@settings(deadline=None, max_examples=5)
@given(st.lists(RECORDS, min_size=1, max_size=3))
def test_whatever_was_counted_can_be_shown(runs: list[list[ReplyFigures]]) -> None:
    found = [run_of(records, f"run {number}") for number, records in enumerate(runs)]
    tables = run_tables(found, {}, 10)
    assert tables
    for table in tables:
        assert all(len(cells) == len(table.columns) for cells in table.rows)
    if any(runs):
        PageReader(runs_page(found, {}))


def test_settings_with_many_values_are_counted_and_drawn_seeds_left_out(tmp_path: Path) -> None:
    def run(name: str, windows: list[int], **changes: Any) -> RunFile:
        lines = [
            line(i, provenance={"version": "1", "settings": {"window": window, "seed": i, **changes}})
            for i, window in enumerate(windows)
        ]
        return read_run(written(tmp_path / f"{name}.jsonl", *lines))

    found = differences([run("a", [6, 6, 6, 6, 6]), run("b", [1, 2, 3, 4, 5], extra=True)])
    assert found == {"window": [[6], [1, 2, 3, 4, 5]]}
    same = differences([run("c", [6], share=1), run("d", [6], share=1.0), run("e", [6], share=True)])
    assert same == {"share": [[1], [1], [True]]}
    shown = run_tables([summary(run("a", [6])), summary(run("b", [6]))], found, 10)[1]
    assert shown.rows == (("window", "6", "5 values"),)


def test_a_name_for_every_file() -> None:
    assert names([Path("a/x.jsonl"), Path("y.jsonl")]) == ["x", "y"]
    assert names([Path("a/x.jsonl"), Path("b/x.jsonl")]) == [str(Path("a/x")), str(Path("b/x"))]
    assert names([Path("x.jsonl")] * 3) == ["x", "x (2)", "x (3)"]


# -- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 40, 300, -1, -2])
def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path, cut: int) -> None:
    text = json.dumps(line(1, text="é"), ensure_ascii=False).encode()
    path = written(tmp_path / "run.jsonl", line(0), text[:cut])
    done = report("--json", path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["runs"][0]["replies"] == 1
    assert done.stderr.decode().splitlines() == [f"wsd-local: {path}: its last line is not whole and is left out"]


def test_a_line_torn_inside_a_character_is_left_out(tmp_path: Path) -> None:
    text = '{"text": "é'.encode()[:-1]
    assert read_run(written(tmp_path / "run.jsonl", line(0), text)).torn


def test_a_last_line_that_is_whole_counts_without_its_end(tmp_path: Path) -> None:
    run = read_run(written(tmp_path / "run.jsonl", line(0), json.dumps(line(1)).encode()))
    assert (len(run.records), run.torn) == (2, False)


def test_white_lines_other_line_ends_and_a_mark_at_the_beginning_do_no_harm(tmp_path: Path) -> None:
    first, second = (json.dumps(line(i)).encode() for i in (0, 1))
    run = read_run(written(tmp_path / "run.jsonl", b"\xef\xbb\xbf" + first + b"\r\n", b"  \n\n", second + b"\r\n"))
    assert (len(run.records), run.torn) == (2, False)


DAMAGED: dict[str, list[bytes]] = {
    "is not JSON": [b"{\n", b"\x00\x00\n", b'{"text": "\xff"}\n', b"[" * 100_000 + b"\n"],
    "it is no object": [b"[]\n", b"null\n", b'"reply"\n', b"3\n", b"3"],
    "it has no `draft`": [b"{}\n", b'{"forms": {}}\n', b"{}"],
    "`switch` is no object": [json.dumps(line(switch=None)).encode() + b"\n"],
    "it has no `timings.total_s`": [json.dumps(line(timings={})).encode() + b"\n"],
    "`switch.index` is no count": [
        json.dumps(line(switch__index=value)).encode() + b"\n" for value in [-1, 1.5, True, "6", 10**400]
    ],
    "`timings.total_s` is no amount": [
        json.dumps(line(timings__total_s=value)).encode() + b"\n" for value in (float("nan"), -1, "1", 1e300)
    ],
    "`switch.reason` is none of": [
        json.dumps(line(switch__reason=value)).encode() + b"\n" for value in ("why", ["threshold"], 1)
    ],
    "`finish_reason` is none of": [json.dumps(line(finish_reason=None)).encode() + b"\n"],
}


@pytest.mark.parametrize(("words", "bad"), [(words, bad) for words, lines in DAMAGED.items() for bad in lines])
def test_another_damaged_line_is_an_error_with_its_place(tmp_path: Path, words: str, bad: bytes) -> None:
    more = [line(2)] if bad.endswith(b"\n") else []
    path = written(tmp_path / "run.jsonl", line(0), b"\n", bad, *more)
    with pytest.raises(UsageError) as error:
        read_run(path)
    assert f"{path}, line 3: " in str(error.value)
    assert words in str(error.value)
    assert len(str(error.value)) < 500


def test_the_command_says_damage_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", line(0), b"{}\n")
    complains(report(path), str(path), "line 2", "not a reply")
    complains(report(tmp_path / "absent.jsonl"), "absent.jsonl", "No such file")
    complains(report(tmp_path), str(tmp_path), "cannot be read")
    complains(report(), "RUN.jsonl")


def test_an_empty_file_is_said(tmp_path: Path) -> None:
    empty, full = written(tmp_path / "empty.jsonl"), written(tmp_path / "full.jsonl", line(0))
    done = report("--json", empty, full, "--html", tmp_path / "page.html")
    assert done.returncode == 0
    assert f"{empty}: there is no reply in it" in done.stderr.decode()
    assert [run["replies"] for run in json.loads(done.stdout)["runs"]] == [0, 1]
    assert "empty" in PageReader((tmp_path / "page.html").read_text("utf-8")).drawn
    assert report(empty, full).returncode == 0
    alone = report(empty)
    assert (alone.returncode, alone.stdout) == (2, b"")
    assert "no file holds a reply" in alone.stderr.decode()


def test_failed_prompts_are_counted_apart_and_later_lines_win(tmp_path: Path) -> None:
    failed = {"index": 1, "id": "b", "turn": 0, "error": "too long"}
    path = written(
        tmp_path / "run.jsonl", line(0, base__tokens=100), failed, {**failed, "index": 2}, line(0), line(2), failed
    )
    found = summary(read_run(path))
    assert (found.replies, found.failed, found.base_tokens) == (2, 1, 6)
    late = summary(read_run(written(path, line(0), {**failed, "index": 0})))
    assert (late.replies, late.failed) == (1, 0)
    turns = summary(
        read_run(written(path, line(0), line(0, turn=1), {**line(0), "turn": None}, {**line(0), "turn": None}))
    )
    assert turns.replies == 4


def test_names_and_values_that_mean_something_elsewhere_stay_text(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "$x^2$ &amp;.jsonl", line(0, draft__model="[red]small[/red]")),
        written(tmp_path / "_[bold]odd.jsonl", line(0, base__model="</script><script>1\x1b[31m\ud800")),
        written(
            tmp_path / ("日本語" * 25 + ".jsonl"), line(0, provenance={"settings": {"window": 3, "grammar": "x" * 500}})
        ),
    ]
    done = report(*files, "--html", tmp_path / "page.html")
    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == [f"wsd-local: written: {tmp_path / 'page.html'}"]
    shown = done.stdout.decode()
    assert "[red]small[/red]" in shown and "_[bold]odd" in shown and "\x1b" not in shown
    page = PageReader((tmp_path / "page.html").read_text("utf-8"))
    assert "$x^2$ &amp;" in page.drawn and "_[bold]odd" in page.drawn
    assert "[red]small[/red]" in page.cells
    assert json.loads(report("--json", *files).stdout)["runs"][0]["name"] == "$x^2$ &amp;"


# -- pages ---------------------------------------------------------------------------------------------------


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path) -> None:
    run = written(tmp_path / "run.jsonl", line(0))
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "matplotlib.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    lacking = {"PYTHONPATH": str(tmp_path / "lacking")}
    environment = {**os.environ, **lacking}
    done = wsd_process("eval", "report", str(run), "--html", str(tmp_path / "page.html"), env=environment)
    complains(done, '-m pip install "matplotlib>=3.9"', code=1)
    assert not (tmp_path / "page.html").exists()
    assert wsd_process("eval", "report", str(run), env=environment).returncode == 0


def test_drawing_without_matplotlib_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_svg", None)
    with pytest.raises(WsdError, match=r"-m pip install .*matplotlib"):
        bars(["a"], {"b": [1.0]}, axis="x", label=str)


def test_a_page_is_not_written_over_a_run_or_where_it_cannot_be(tmp_path: Path) -> None:
    run = written(tmp_path / "run.jsonl", line(0))
    complains(report(run, "--html", run), "is one of the runs")
    complains(report(run, "--html", tmp_path), "is a folder")
    complains(report(run, "--html", run / "page.html"), "cannot be written")
    assert read_runs([run])[0].records


def test_an_old_page_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    run, page = written(tmp_path / "run.jsonl", line(0)), tmp_path / "page.html"
    page.write_text("old", encoding="utf-8")
    assert report(run, "--html", page).returncode == 0
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run.jsonl"]


def test_the_help_needs_no_matplotlib_and_no_models() -> None:
    code = "import sys, wsd_local.cli; print([m for m in ('matplotlib', 'numpy', 'llama_cpp') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


def test_settings_of_matplotlib_in_the_working_folder_are_not_read(tmp_path: Path) -> None:
    """They write what they like to the terminal, and bytes that are no text end the program."""
    (tmp_path / "matplotlibrc").write_bytes(b"\x1b[2Jno setting: 1\n\xff\xfe")
    code = "from wsd_local.reports import charts; charts.require(); import os; print(os.getcwd())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path) and done.stderr == ""
