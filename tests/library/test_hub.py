"""Fetching models from a Hub: through functions, and as a person runs `wsd-local models pull`."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
from filelock import FileLock
from hub_stand_in import COMMIT, GOOD_TOKEN, STRANGER_TOKEN, Fault, HubStandIn, Repo

from wsd_local.errors import CancelledError, ModelError, UsageError, WsdError
from wsd_local.library.catalog import PairEntry, catalog_models
from wsd_local.library.download import RemoteFile, TransferPhase
from wsd_local.library.hub import Download, Hub
from wsd_local.library.registry import Known, known, remember
from wsd_local.prompts.base_format import BaseFormat

SIZE = 300_000
REPO = "owner/Name-GGUF"
FILE = "Name.Q4_K_M.gguf"


def gguf(seed: int, size: int = SIZE) -> bytes:
    """Bytes that begin like a model."""
    return b"GGUF" + random.Random(seed).randbytes(size - 4)


DATA = gguf(1)


@pytest.fixture
def stand_in() -> Iterator[HubStandIn]:
    with HubStandIn(**{REPO: Repo({FILE: DATA, "Name.Q2_K.gguf": gguf(2), "README.md": b"hello"})}) as hub:
        yield hub


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a registry of its own, and asks nobody but the stand-in."""
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(stand_in: HubStandIn, tmp_path: Path) -> Hub:
    return Hub(stand_in.url, tmp_path / "hub", waits=(0.0, 0.0, 0.0))


def only(hub: Hub, what: str = REPO, name: str | None = None) -> Download:
    """The one download of a plan."""
    (download,) = hub.plan(what, name).downloads
    return download


def part_of(hub: Hub, download: Download) -> Path:
    """Where the bytes of an unfinished transfer are."""
    assert hub.cache is not None
    blobs = hub.cache / f"models--{download.repo.replace('/', '--')}" / "blobs"
    return blobs / f"{download.files[0].blob}.wsd-local.incomplete"


def nothing_left(hub: Hub) -> bool:
    """Whether the cache holds no bytes of a model."""
    assert hub.cache is not None
    return not [path for path in hub.cache.rglob("*") if path.is_file() and path.stat().st_size > 100]


class Called(NamedTuple):
    """How the command ended."""

    code: int
    out: str
    error: str


def environment(stand_in: HubStandIn, tmp_path: Path, **more: str) -> dict[str, str]:
    """Of a command that knows the stand-in alone."""
    own = {"HF_ENDPOINT": stand_in.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**os.environ, **own, **more}


def pull(stand_in: HubStandIn, tmp_path: Path, *arguments: str, **more: str) -> Called:
    """Run `wsd-local models pull` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "wsd_local", "models", "pull", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment(stand_in, tmp_path, **more),
    )
    assert "Traceback" not in done.stderr
    return Called(done.returncode, done.stdout, done.stderr)


def complains(called: Called, code: int, *words: str) -> None:
    """One line on standard error with these words, and this code."""
    assert called.code == code, called.error
    assert len(called.error.strip().splitlines()) == 1, called.error
    for word in words:
        assert word in called.error


# -- the command ---------------------------------------------------------------------------------------------


def test_a_model_is_fetched_into_the_hubs_cache_and_known_by_a_name(stand_in: HubStandIn, tmp_path: Path) -> None:
    done = pull(stand_in, tmp_path, f"{REPO}:q4_k_m")
    path = tmp_path / "hub" / "models--owner--Name-GGUF" / "snapshots" / COMMIT / FILE
    assert done == (0, f"name.q4_k_m  {path}  300.0 kB\n", "")
    assert path.read_bytes() == DATA
    assert known() == {"name.q4_k_m": Known("name.q4_k_m", (path,), "pulled", REPO, COMMIT)}
    other = f"from huggingface_hub import hf_hub_download as get; print(get(*{(REPO, FILE)!r}))"
    offline = environment(stand_in, tmp_path, HF_HUB_OFFLINE="1")
    assert subprocess.check_output([sys.executable, "-c", other], env=offline, text=True).strip() == str(path)
    before = len(stand_in.ranges())
    assert pull(stand_in, tmp_path, f"{REPO}:Q4_K_M") == done
    assert pull(stand_in, tmp_path, "name.q4_k_m") == done
    assert pull(stand_in, tmp_path, f"{REPO}:{FILE}", HF_HUB_OFFLINE="1") == done
    assert len(stand_in.ranges()) == before


def test_a_killed_command_goes_on_from_its_bytes(stand_in: HubStandIn, tmp_path: Path) -> None:
    stand_in.next["get"].append(Fault(cut=123_457, hold=True))
    blobs = tmp_path / "hub" / "models--owner--Name-GGUF" / "blobs"
    with subprocess.Popen(
        [sys.executable, "-m", "wsd_local", "models", "pull", REPO], env=environment(stand_in, tmp_path)
    ) as running:
        while not any(part.stat().st_size == 123_457 for part in blobs.glob("*.incomplete")):
            assert running.poll() is None
        running.kill()
    assert known() == {}
    assert pull(stand_in, tmp_path, REPO).code == 0
    assert stand_in.ranges() == [None, "bytes=123457-"]
    assert known()["name.q4_k_m"].path.read_bytes() == DATA
    assert not list(blobs.glob("*.incomplete"))


@pytest.mark.skipif(sys.platform == "win32", reason="expected: no SIGINT for one process")
def test_an_interrupted_command_says_130_and_keeps_its_bytes(stand_in: HubStandIn, tmp_path: Path) -> None:
    stand_in.next["get"].append(Fault(cut=1000, hold=True))
    blobs = tmp_path / "hub" / "models--owner--Name-GGUF" / "blobs"
    with subprocess.Popen(
        [sys.executable, "-m", "wsd_local", "models", "pull", REPO],
        env=environment(stand_in, tmp_path),
        stderr=subprocess.PIPE,
        # A shell's background jobs ignore Ctrl-C, and so would their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as running:
        while not any(part.stat().st_size == 1000 for part in blobs.glob("*.incomplete")):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, error = running.communicate()
    assert (running.returncode, error) == (130, b"")
    assert [part.stat().st_size for part in blobs.glob("*.incomplete")] == [1000]


def test_a_dropped_connection_is_gone_on_with_at_once(stand_in: HubStandIn, tmp_path: Path) -> None:
    stand_in.next["get"].append(Fault(cut=5))
    assert pull(stand_in, tmp_path, REPO).code == 0
    assert stand_in.ranges() == [None, "bytes=5-"]


def test_a_gated_repository_is_explained(stand_in: HubStandIn, tmp_path: Path) -> None:
    stand_in.repos[REPO].gated = True
    page = f"{stand_in.url}/{REPO}"
    complains(pull(stand_in, tmp_path, REPO), 3, "gated", page, "accept the licence", "hf auth login", "HF_TOKEN")
    stranger = pull(stand_in, tmp_path, REPO, HF_TOKEN=STRANGER_TOKEN)
    complains(stranger, 3, "gated", page, "your account may not read it yet")
    assert pull(stand_in, tmp_path, REPO, HF_TOKEN=GOOD_TOKEN).code == 0
    # The Hub gets the token, and the storage it redirects to does not.
    tokens = {asked.kind: asked.token for asked in stand_in.log}
    assert tokens == {"api": GOOD_TOKEN, "head": GOOD_TOKEN, "get": None}


def test_a_pair_whose_draft_must_be_converted(stand_in: HubStandIn, tmp_path: Path) -> None:
    entry = catalog_models()["llama-3-70b"]
    assert entry.repo is not None and entry.file is not None
    stand_in.repos[entry.repo] = Repo({entry.file: DATA})
    done = pull(stand_in, tmp_path, "paper")
    terms, _, error = done.error.partition("\n")
    assert "llama-3-70b: licence llama3" in terms and "https://www.llama.com/llama3/license/" in terms
    complains(done._replace(error=error), 3, "pilot-3b is still missing", "models convert songff/Pilot-3B")
    assert done.out == f"llama-3-70b  {known()['llama-3-70b'].path}  300.0 kB\n"


def test_what_is_part_of_the_program_needs_nothing(stand_in: HubStandIn, tmp_path: Path) -> None:
    done = pull(stand_in, tmp_path, "demo")
    assert done == (0, "demo-draft is part of the program\ndemo-base is part of the program\n", "")
    assert stand_in.log == []


def test_offline(stand_in: HubStandIn, tmp_path: Path) -> None:
    complains(pull(stand_in, tmp_path, REPO, HF_HUB_OFFLINE="1"), 1, REPO, "not in the cache", "HF_HUB_OFFLINE")
    assert stand_in.log == []


def test_nobody_answers(stand_in: HubStandIn, tmp_path: Path) -> None:
    with HubStandIn() as gone:
        pass
    complains(pull(gone, tmp_path, REPO), 1, gone.url, "cannot be reached", "HF_ENDPOINT")
    complains(pull(stand_in, tmp_path, REPO, HF_ENDPOINT="nonsense"), 1, "nonsense", "HF_ENDPOINT")


def test_a_name_that_is_not_there(stand_in: HubStandIn, tmp_path: Path) -> None:
    complains(pull(stand_in, tmp_path, "laptp"), 3, "'laptp'", "did you mean 'laptop'")
    complains(pull(stand_in, tmp_path, f"{REPO}:Q4_K_S"), 3, "no 'Q4_K_S'", "Q4_K_M, Q2_K")


# -- plans ---------------------------------------------------------------------------------------------------


def test_the_plan_says_what_is_to_come(hub: Hub, stand_in: HubStandIn) -> None:
    download = only(hub)
    sha256 = download.files[0].sha256
    assert download.files == (RemoteFile(FILE, SIZE, str(sha256), sha256),)
    assert (download.size, download.missing) == (SIZE, SIZE)
    assert (download.name, download.repo, download.revision) == ("name.q4_k_m", REPO, COMMIT)
    assert stand_in.ranges() == []
    hub.fetch(download)
    assert only(hub).missing == 0


def test_a_model_of_the_catalog_keeps_its_name(hub: Hub, stand_in: HubStandIn) -> None:
    entry = catalog_models()["llama-3.1-70b-q2"]
    assert entry.repo is not None and entry.file is not None
    stand_in.repos[entry.repo] = Repo({entry.file: DATA, "Meta-Llama-3.1-70B.Q4_K_M.gguf": gguf(3)})
    assert only(hub, "llama-3.1-70b-q2").name == only(hub, f"{entry.repo}:Q2_K").name == "llama-3.1-70b-q2"
    assert only(hub, entry.repo).name == "llama-3.1-70b"
    assert only(hub, f"{entry.repo}:Q2_K", "mine").name == "mine"


def test_two_models_never_have_one_name(hub: Hub, stand_in: HubStandIn) -> None:
    hub.fetch(only(hub))
    stand_in.repos["Other/Name-GGUF"] = Repo({FILE: gguf(4)})
    hub.fetch(only(hub, "Other/Name-GGUF"))
    assert sorted(known()) == ["name.q4_k_m", "name.q4_k_m-other"]
    assert only(hub, "Other/Name-GGUF").name == "name.q4_k_m-other"
    assert only(hub).name == "name.q4_k_m"


@pytest.mark.parametrize("name", ["", "a/b", "x.gguf", "-x", "laptop", "llama-3-70b"])
def test_a_name_that_cannot_be_given(hub: Hub, stand_in: HubStandIn, name: str) -> None:
    with pytest.raises(UsageError, match="--as"):
        hub.plan(REPO, name)
    assert stand_in.log == []


def test_a_name_for_a_pair(hub: Hub) -> None:
    with pytest.raises(UsageError, match="pair"):
        hub.plan("laptop", "mine")


def test_a_name_that_something_else_has(hub: Hub, stand_in: HubStandIn, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    remember(Known("mine", (own,), "imported"))
    with pytest.raises(UsageError, match="mine"):
        hub.plan(REPO, "mine")
    hub.fetch(only(hub, REPO, "other"))
    assert only(hub, REPO, "other").missing == 0


def test_the_users_own_pairs(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "draft.gguf"
    file.write_bytes(b"GGUF")
    plan = hub.plan("mine", own={"mine": PairEntry("mine", str(file), REPO, BaseFormat())})
    assert [ready.path for ready in plan.ready] == [file]
    assert [download.repo for download in plan.downloads] == [REPO]


def test_the_command_knows_the_users_pairs(stand_in: HubStandIn, tmp_path: Path) -> None:
    file, config = tmp_path / "sha256-blob", tmp_path / "config.toml"
    file.write_bytes(b"GGUF")
    config.write_text(f'[pairs.mine]\ndraft = "{REPO}"\nbase = "{file.as_posix()}"\n')
    done = pull(stand_in, tmp_path, "mine", WSD_LOCAL_CONFIG=str(config))
    path = known()["name.q4_k_m"].path
    assert done == (0, f"{file} is here already\nname.q4_k_m  {path}  300.0 kB\n", "")
    config.write_text(f'[pairs.mine]\ndraft = "{REPO}"\nbase = "{tmp_path.as_posix()}/gone.gguf"\n')
    complains(pull(stand_in, tmp_path, "mine", WSD_LOCAL_CONFIG=str(config)), 3, "gone.gguf: no such file")
    complains(pull(stand_in, tmp_path, "min", WSD_LOCAL_CONFIG=str(config)), 3, "did you mean 'mine'")


def test_a_model_that_was_converted_here_is_ready(hub: Hub, stand_in: HubStandIn, tmp_path: Path) -> None:
    made = tmp_path / "pilot.gguf"
    made.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="wsd-local models convert songff/Pilot-3B"):
        hub.plan("pilot-3b")
    remember(Known("pilot-3b", (made,), "made"))
    assert [ready.path for ready in hub.plan("pilot-3b").ready] == [made]


@pytest.mark.parametrize("what", ["a b/c", "owner/", "/abs/olute", "https://huggingface.co/owner/name", "a/b/c"])
def test_what_names_no_repository(hub: Hub, stand_in: HubStandIn, what: str) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        hub.plan(what)
    assert stand_in.log == []


# -- names that are not trusted -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../x.gguf", "a/../../x.gguf", "/x.gguf", "C:/x.gguf", "a\\x.gguf", "a\x1b[2J.gguf"])
def test_a_file_name_that_leaves_the_repository_is_not_seen(hub: Hub, stand_in: HubStandIn, path: str) -> None:
    stand_in.repos[REPO].files = {path: DATA}
    with pytest.raises(ModelError, match="no GGUF"):
        hub.plan(REPO)


@pytest.mark.parametrize("commit", ["../../../../etc", "", "main"])
def test_a_commit_that_is_none(hub: Hub, stand_in: HubStandIn, commit: str) -> None:
    stand_in.repos[REPO].commit = commit
    with pytest.raises(WsdError, match="does not answer as the Hub does"):
        hub.plan(REPO)


# -- transfers -----------------------------------------------------------------------------------------------


def test_split_files_are_fetched_in_their_order(hub: Hub, stand_in: HubStandIn) -> None:
    parts = {f"Big-Q4_K_M-0000{i}-of-00003.gguf": gguf(10 + i, 50_000 + i) for i in (3, 1, 2)}
    stand_in.repos[REPO].files = dict(parts)
    seen: list[tuple[int, int, TransferPhase]] = []
    stand_in.next["get"] += [Fault(), Fault(cut=7)]
    entry = hub.fetch(only(hub), lambda done, total, phase: seen.append((done, total, phase)))
    assert entry.name == "big-q4_k_m"
    assert [path.name for path in entry.paths] == sorted(parts)
    assert [path.read_bytes() for path in entry.paths] == [parts[name] for name in sorted(parts)]
    total = sum(map(len, parts.values()))
    for phase in ("download", "verify"):
        counts = [done for done, of, what in seen if what == phase and of == total]
        assert counts == sorted(counts)
        assert counts[-1] == total


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 4096, SIZE - 1])
def test_a_connection_that_is_cut(hub: Hub, stand_in: HubStandIn, cut: int, reset: bool) -> None:
    download = only(hub)
    stand_in.next["get"] += [Fault(cut=cut, reset=reset), Fault(cut=1)]
    assert hub.fetch(download).path.read_bytes() == DATA
    first, second, *_ = stand_in.ranges()
    assert first is None
    assert reset or second == (f"bytes={cut}-" if cut else None)


def test_a_cut_after_the_last_byte(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.next["get"].append(Fault(cut=SIZE))
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    assert stand_in.ranges() == [None]


def test_connections_that_are_always_cut_end_if_nothing_comes(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.next["get"] += [Fault(cut=1000) for _ in range(10)]
    stand_in.always["get"] = Fault(cut=0)
    download = only(hub)
    with pytest.raises(WsdError, match="goes on from what is there"):
        hub.fetch(download)
    assert part_of(hub, download).read_bytes() == DATA[:10_000]
    assert len(stand_in.ranges()) == 10 + len(hub.waits)
    assert only(hub).missing == SIZE - 10_000
    stand_in.always.clear()
    assert hub.fetch(download).path.read_bytes() == DATA
    assert stand_in.ranges()[-1] == "bytes=10000-"


def test_an_answer_that_ends_early_without_a_word(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.next["get"].append(Fault(chunked=True, cut=100))
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    assert stand_in.ranges() == [None, "bytes=100-"]
    stand_in.repos[REPO].files = {"Other.gguf": gguf(5)}
    stand_in.always["get"] = Fault(chunked=True, cut=0)
    with pytest.raises(WsdError, match=f"only 0 of {SIZE} bytes"):
        hub.fetch(only(hub))


def test_a_server_without_ranges_begins_again(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.next["get"] += [Fault(cut=1000), Fault(whole=True)]
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    assert stand_in.ranges() == [None, "bytes=1000-"]


def test_a_range_that_is_refused_begins_again(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.next["get"] += [Fault(cut=1000), Fault(status=416)]
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    assert stand_in.ranges() == [None, "bytes=1000-", None]


def test_ranges_that_are_always_refused_end(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.next["get"] += [Fault(cut=1000), Fault(status=416)] * 9
    with pytest.raises(WsdError):
        hub.fetch(only(hub))
    assert len(stand_in.ranges()) <= 2 + len(hub.waits)


def test_a_part_that_is_complete_already(hub: Hub, stand_in: HubStandIn) -> None:
    download = only(hub)
    part_of(hub, download).parent.mkdir(parents=True)
    part_of(hub, download).write_bytes(DATA)
    assert hub.fetch(download).path.read_bytes() == DATA
    assert stand_in.ranges() == []


def test_a_part_that_is_too_long(hub: Hub, stand_in: HubStandIn) -> None:
    download = only(hub)
    part_of(hub, download).parent.mkdir(parents=True)
    part_of(hub, download).write_bytes(DATA + b"x")
    with pytest.raises(WsdError, match="removed"):
        hub.fetch(download)
    assert hub.fetch(download).path.read_bytes() == DATA


def test_an_empty_file(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.repos[REPO].files = {"Empty.gguf": b""}
    assert hub.fetch(only(hub)).path.read_bytes() == b""


def test_a_small_file_in_git(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.repos[REPO].lfs = False
    download = only(hub)
    assert download.files[0].sha256 is None
    assert hub.fetch(download).path.read_bytes() == DATA


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("kind", ["api", "head", "get"])
def test_a_server_that_fails_once(hub: Hub, stand_in: HubStandIn, kind: Any, status: int) -> None:
    stand_in.next[kind].append(Fault(status=status, headers={"Retry-After": "0"} if status == 429 else {}))
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    assert len([asked for asked in stand_in.log if asked.kind == kind]) == 2


@pytest.mark.parametrize("kind", ["api", "head", "get"])
def test_a_server_that_always_fails(hub: Hub, stand_in: HubStandIn, kind: Any) -> None:
    stand_in.always[kind] = Fault(status=500)
    with pytest.raises(WsdError, match=f"{stand_in.url} answers 500 for {REPO}: try again later") as caught:
        hub.fetch(only(hub))
    assert caught.value.exit_code == 1
    assert len([asked for asked in stand_in.log if asked.kind == kind]) == 1 + len(hub.waits)


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "7000"}, {"RateLimit": '"api";r=0;t=7000'}], ids=["retry-after", "ratelimit"]
)
def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(
    hub: Hub, stand_in: HubStandIn, headers: dict[str, str]
) -> None:
    stand_in.always["get"] = Fault(status=429, headers=headers)
    with pytest.raises(WsdError, match=r"answers 429 .* try again in 7000 s"):
        hub.fetch(only(hub))
    assert len(stand_in.ranges()) == 1


def test_a_server_that_asks_for_a_wait_is_waited_for(
    hub: Hub, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("wsd_local.library.download._pause", lambda seconds, _tell: waited.append(seconds))
    stand_in.next["get"] += [Fault(status=429, headers={"Retry-After": "30"}), Fault(cut=3)]
    hub.fetch(only(hub))
    assert waited == [30.0, 0.0]


def test_wrong_bytes_are_removed_and_fetched_again(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.next["get"].append(Fault(content=gguf(6)))
    with pytest.raises(WsdError, match=f"{FILE}: the bytes are wrong .*SHA-256.* removed") as caught:
        hub.fetch(only(hub))
    assert caught.value.exit_code == 1
    assert nothing_left(hub)
    assert known() == {}
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    assert stand_in.ranges() == [None, None]


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 10])
@pytest.mark.parametrize("chunked", [False, True])
def test_bytes_of_the_wrong_size(hub: Hub, stand_in: HubStandIn, size: int, chunked: bool) -> None:
    stand_in.always["get"] = Fault(content=gguf(6, size), chunked=chunked)
    with pytest.raises(WsdError):
        hub.fetch(only(hub))
    assert known() == {}
    assert nothing_left(hub) or size < SIZE
    stand_in.always.clear()
    download = only(hub)
    if not nothing_left(hub):
        with pytest.raises(WsdError, match="SHA-256"):
            hub.fetch(download)
    assert hub.fetch(download).path.read_bytes() == DATA


@pytest.mark.parametrize(
    "wrong",
    [
        Fault(content=b"<html>log in to this network</html>", whole=True),
        Fault(content=b"<html>log in", whole=True, chunked=True, headers={"Content-Type": "text/html; charset=utf-8"}),
        Fault(content=DATA + b"x"),
        Fault(content=DATA + b"x", chunked=True, headers={"Content-Range": f"bytes 1000-{SIZE}/*"}),
    ],
    ids=["other-size", "web-page", "larger", "endless"],
)
def test_what_came_is_not_lost_to_a_wrong_answer(hub: Hub, stand_in: HubStandIn, wrong: Fault) -> None:
    download = only(hub)
    part_of(hub, download).parent.mkdir(parents=True)
    part_of(hub, download).write_bytes(DATA[:1000])
    stand_in.next["get"].append(wrong)
    with pytest.raises(WsdError, match="none of it is kept"):
        hub.fetch(download)
    assert part_of(hub, download).read_bytes() == DATA[:1000]
    assert hub.fetch(download).path.read_bytes() == DATA
    assert stand_in.ranges() == ["bytes=1000-", "bytes=1000-"]


def test_a_damaged_file_in_the_cache_is_noticed(hub: Hub, stand_in: HubStandIn) -> None:
    path = hub.fetch(only(hub)).path
    path.write_bytes(gguf(7))
    with pytest.raises(WsdError, match="removed"):
        hub.fetch(only(hub))
    assert nothing_left(hub)
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    path.write_bytes(DATA[:-1])
    with pytest.raises(WsdError, match="has 299999 bytes"):
        hub.fetch(only(hub))
    assert hub.fetch(only(hub)).path.read_bytes() == DATA


def test_the_same_bytes_at_a_new_commit_are_not_fetched_again(hub: Hub, stand_in: HubStandIn) -> None:
    hub.fetch(only(hub))
    stand_in.repos[REPO].commit = "f" * 40
    download = only(hub)
    assert download.missing == 0
    entry = hub.fetch(download)
    assert (entry.revision, entry.path.read_bytes()) == ("f" * 40, DATA)
    assert stand_in.ranges() == [None]
    assert known() == {entry.name: entry}


def test_without_symbolic_links_there_is_one_copy(
    hub: Hub, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS", True)
    path = hub.fetch(only(hub)).path
    assert path.read_bytes() == DATA
    assert not path.is_symlink()
    assert not list((path.parents[2] / "blobs").iterdir())
    hub.fetch(only(hub))
    assert stand_in.ranges() == [None]


def test_progress_can_stop_it(hub: Hub, stand_in: HubStandIn) -> None:
    def stop(done: int, total: int, phase: TransferPhase) -> None:
        if done >= 65_536:
            raise CancelledError("enough")

    download = only(hub)
    with pytest.raises(CancelledError):
        hub.fetch(download, stop)
    came = part_of(hub, download).stat().st_size
    assert 65_536 <= came < SIZE
    hub.fetch(download)
    assert stand_in.ranges() == [None, f"bytes={came}-"]


def test_a_check_that_was_stopped_is_made_again(hub: Hub, stand_in: HubStandIn) -> None:
    def stop(done: int, total: int, phase: TransferPhase) -> None:
        if phase == "verify":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.fetch(only(hub), stop)
    assert known() == {}
    download = only(hub)
    assert download.missing == 0
    assert hub.fetch(download).path.read_bytes() == DATA
    assert stand_in.ranges() == [None]


def test_two_programs_fetch_a_file_once(hub: Hub, stand_in: HubStandIn) -> None:
    download, entries = only(hub), []
    others = [threading.Thread(target=lambda: entries.append(hub.fetch(download))) for _ in range(2)]

    def begin(done: int, total: int, phase: TransferPhase) -> None:
        if others[0].ident is None:
            for other in others:
                other.start()

    entries.append(hub.fetch(download, begin))
    for other in others:
        other.join()
    assert len(entries) == 3
    assert {entry.path.read_bytes() for entry in entries} == {DATA}
    assert stand_in.ranges() == [None]


def test_waiting_for_another_program_can_be_stopped(hub: Hub, stand_in: HubStandIn) -> None:
    def stop(done: int, total: int, phase: TransferPhase) -> None:
        raise CancelledError("enough")

    download = only(hub)
    assert hub.cache is not None
    lock = hub.cache / ".locks" / "models--owner--Name-GGUF" / f"{download.files[0].blob}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(CancelledError):
        hub.fetch(download, stop)
    assert stand_in.ranges() == []


def test_the_librarys_own_tools_know_what_is_unfinished(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.next["get"].append(Fault(cut=1000))
    stand_in.always["get"] = Fault(cut=0)
    download = only(hub)
    with pytest.raises(WsdError):
        hub.fetch(download)
    found = huggingface_hub.scan_cache_dir(hub.cache).incomplete_files
    assert [Path(file.file_path) for file in found] == [part_of(hub, download)]


@pytest.mark.skipif(sys.platform == "win32", reason="expected: no pseudo-terminal")
def test_a_terminal_shows_a_bar(stand_in: HubStandIn, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "wsd_local", "models", "pull", REPO],
        env=environment(stand_in, tmp_path, TERM="xterm", COLUMNS="100"),
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as running:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # Linux says so when nobody holds the other end any more.
            pass
        finally:
            os.close(ours)
        out, _ = running.communicate()
    assert running.returncode == 0
    assert out.startswith(b"name.q4_k_m  ")
    for words in (b"name.q4_k_m: download", b"name.q4_k_m: verify", b"300.0/300.0 kB"):
        assert words in shown


def test_a_disk_that_is_too_small_is_noticed_first(
    hub: Hub, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = only(hub)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: types.SimpleNamespace(free=SIZE - 100_000))
    with pytest.raises(WsdError, match=r"300.0 kB must .* 200.0 kB are free: 100.0 kB are missing.*HF_HOME") as caught:
        hub.fetch(download)
    assert caught.value.exit_code == 1
    assert stand_in.ranges() == []
    part_of(hub, download).parent.mkdir(parents=True)
    part_of(hub, download).write_bytes(DATA[:100_000])
    hub.fetch(only(hub))
    assert stand_in.ranges() == ["bytes=100000-"]


def test_a_disk_that_becomes_full(hub: Hub, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("wsd_local.library.download._append", full)
    with pytest.raises(WsdError, match=r"is full: .* goes on"):
        hub.fetch(only(hub))


# -- checkpoints ---------------------------------------------------------------------------------------------

SHARDS = {f"model-0000{i}-of-00002.safetensors": random.Random(i).randbytes(SIZE) for i in (1, 2)}
WANTED = {"config.json": b"{}", "tokenizer.json": b"{} ", "model.safetensors.index.json": b"[]", **SHARDS}
OTHERS = {"own.py": b"evil", "README.md": b"hello", "pytorch_model.bin": b"old", "original/model.safetensors": b"1"}
SOURCE = "owner/Name"


@pytest.fixture
def with_checkpoint(stand_in: HubStandIn) -> Repo:
    """The files of a checkpoint and others in a repository."""
    stand_in.repos[SOURCE] = Repo({**WANTED, **OTHERS})
    return stand_in.repos[SOURCE]


def test_a_checkpoint_is_fetched_and_gets_no_name(hub: Hub, stand_in: HubStandIn, with_checkpoint: Repo) -> None:
    download = hub.checkpoint(SOURCE)
    assert {file.path: file.size for file in download.files} == {name: len(data) for name, data in WANTED.items()}
    assert [file.sha256 is not None for file in download.files] == [name in SHARDS for name in WANTED]
    size = sum(map(len, WANTED.values()))
    assert (download.name, download.repo, download.revision) == ("Name", SOURCE, COMMIT)
    assert (download.size, download.missing) == (size, size)
    assert stand_in.ranges() == []
    paths = hub.obtain(download)
    assert {path.name: path.read_bytes() for path in paths} == WANTED
    assert {path.parent for path in paths} == {paths[0].parent}
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(WANTED)
    assert known() == {}
    asked = len(stand_in.log)
    assert hub.checkpoint(SOURCE).missing == 0
    assert hub.obtain(hub.checkpoint(SOURCE)) == paths
    assert {one.kind for one in stand_in.log[asked:]} == {"api"}


def test_a_checkpoint_is_gone_on_with(hub: Hub, stand_in: HubStandIn, with_checkpoint: Repo) -> None:
    small = len(WANTED) - len(SHARDS)
    stand_in.next["get"] += [*(Fault() for _ in range(small + 1)), Fault(cut=777)]
    stand_in.always["get"] = Fault(cut=0)
    with pytest.raises(WsdError, match="goes on from what is there"):
        hub.obtain(hub.checkpoint(SOURCE))
    stand_in.always.clear()
    before = len(stand_in.ranges())
    again = Hub(hub.endpoint, hub.cache)
    assert again.checkpoint(SOURCE).missing == SIZE - 777
    assert {path.name: path.read_bytes() for path in again.obtain(again.checkpoint(SOURCE))} == WANTED
    assert stand_in.ranges()[before:] == ["bytes=777-"]


def test_wrong_weights_are_removed(hub: Hub, stand_in: HubStandIn, with_checkpoint: Repo) -> None:
    stand_in.next["get"] += [*(Fault() for _ in WANTED), Fault()]
    stand_in.next["get"][len(WANTED) - 1] = Fault(content=gguf(8))
    with pytest.raises(WsdError, match=r"model-00002-of-00002\.safetensors: the bytes are wrong"):
        hub.obtain(hub.checkpoint(SOURCE))
    assert hub.checkpoint(SOURCE).missing == SIZE


def test_checkpoints_that_cannot_be_had(hub: Hub, stand_in: HubStandIn, with_checkpoint: Repo) -> None:
    with pytest.raises(ModelError, match="owner/nothing does not exist, or is private"):
        hub.checkpoint("owner/nothing")
    with pytest.raises(ModelError, match=f"{REPO}: holds no checkpoint"):
        hub.checkpoint(REPO)
    with pytest.raises(UsageError, match="names no repository"):
        hub.checkpoint("name")
    with_checkpoint.gated = True
    with pytest.raises(ModelError, match=r"is gated: open .*accept the licence"):
        hub.checkpoint(SOURCE)
    with HubStandIn() as gone:
        pass
    with pytest.raises(WsdError, match=r"cannot be reached .*check the network"):
        Hub(gone.url, hub.cache, waits=()).checkpoint(SOURCE)


def test_a_disk_too_small_for_a_checkpoint(
    hub: Hub, stand_in: HubStandIn, with_checkpoint: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: types.SimpleNamespace(free=SIZE))
    with pytest.raises(WsdError, match=r"600.0 kB must be fetched .* 300.0 kB are free"):
        hub.obtain(hub.checkpoint(SOURCE))
    assert stand_in.ranges() == []


def test_a_checkpoint_without_the_network(
    hub: Hub, stand_in: HubStandIn, with_checkpoint: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = hub.obtain(hub.checkpoint(SOURCE))
    asked = len(stand_in.log)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = hub.checkpoint(SOURCE)
    assert (found.revision, found.missing) == (COMMIT, 0)
    assert sorted(hub.obtain(found)) == sorted(paths)
    with pytest.raises(WsdError, match=r"owner/other is not in the cache, and HF_HUB_OFFLINE is set"):
        hub.checkpoint("owner/other")
    assert len(stand_in.log) == asked


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, GOOD_TOKEN])
def test_a_repository_that_is_not_there(hub: Hub, stand_in: HubStandIn, token: str | None) -> None:
    asking = Hub(hub.endpoint, hub.cache, token, ())
    with pytest.raises(ModelError, match=f"owner/nothing does not exist, or is private or gated: .*{stand_in.url}"):
        asking.plan("owner/nothing")
    with pytest.raises(ModelError, match=r"did you mean .mradermacher/Qwen2\.5-7B-GGUF."):
        asking.plan("mradermacher/Qwen2.5-7b-GGUF")


def test_a_repository_that_goes_away(hub: Hub, stand_in: HubStandIn) -> None:
    download = only(hub)
    data = stand_in.repos[REPO].files.pop(FILE)
    with pytest.raises(ModelError, match="not there any more"):
        hub.fetch(download)
    stand_in.repos[REPO].files[FILE] = data
    stand_in.repos[REPO].private = True
    with pytest.raises(ModelError, match="does not exist, or is private"):
        hub.fetch(download)


def test_a_token_that_is_not_accepted(hub: Hub) -> None:
    with pytest.raises(ModelError, match="does not accept the token"):
        Hub(hub.endpoint, hub.cache, "hf_expired").plan(REPO)


def test_forbidden_for_another_reason(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.always["api"] = Fault(status=403, headers={"X-Error-Message": "Not in\tyour country"})
    with pytest.raises(ModelError, match=r"may not be read \(Not in your country\)"):
        hub.plan(REPO)


def test_a_server_that_is_no_hub(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.always["api"] = Fault(status=200)
    with pytest.raises(WsdError, match="does not answer as the Hub does"):
        hub.plan(REPO)


def test_a_server_that_contradicts_itself(hub: Hub, stand_in: HubStandIn) -> None:
    headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{"a" * 64}"', "X-Linked-Size": str(SIZE)}
    stand_in.always["head"] = Fault(status=200, headers=headers)
    with pytest.raises(WsdError, match="contradicts itself"):
        hub.plan(REPO)


# -- chunk storage -------------------------------------------------------------------------------------------


class FakeXet:
    """Chunks as the module for the Hub's chunk storage gives them; `stops` after so many bytes with an error."""

    def __init__(self, data: bytes, stops: int | None = None) -> None:
        self.data, self.stops = data, stops
        self.asked: list[tuple[str, int, int | None]] = []
        self.headers: dict[str, Any] = {}

    def module(self) -> types.SimpleNamespace:
        """What is imported."""
        fake = self

        class Stream:
            def __init__(self, start: int) -> None:
                self.left = [fake.data[i : i + 50_000] for i in range(start, fake.stops or SIZE, 50_000)]

            def __iter__(self) -> Stream:
                return self

            def __next__(self) -> bytes:
                if self.left:
                    return self.left.pop(0)
                if fake.stops is not None:
                    raise RuntimeError("the storage is closed")
                raise StopIteration

            def cancel(self) -> None:
                self.left.clear()

        class Group:
            def download_stream(self, info: tuple[str, int], start: int | None = None) -> Stream:
                fake.asked.append((*info, start))
                return Stream(start or 0)

        class Session:
            def new_download_stream_group(self, **headers: Any) -> Group:
                fake.headers = headers
                return Group()

        return types.SimpleNamespace(XetSession=Session, XetFileInfo=lambda hash, size: (hash, size))


def test_chunk_storage_goes_on_too(hub: Hub, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.repos[REPO].xet = True
    xet = FakeXet(DATA)
    monkeypatch.setitem(sys.modules, "hf_xet", xet.module())
    monkeypatch.setattr("wsd_local.library.download._xet_is_there", lambda: True)
    asking = Hub(hub.endpoint, hub.cache, GOOD_TOKEN, hub.waits)
    download = only(asking)
    part_of(hub, download).parent.mkdir(parents=True)
    part_of(hub, download).write_bytes(DATA[:1000])
    assert asking.fetch(download).path.read_bytes() == DATA
    assert xet.asked == [(download.files[0].sha256, SIZE, 1000)]
    assert stand_in.ranges() == []
    assert GOOD_TOKEN in str(xet.headers["token_refresh_headers"])
    assert GOOD_TOKEN not in str(xet.headers.get("custom_headers"))


def test_where_chunk_storage_fails_http_goes_on(
    hub: Hub, stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.repos[REPO].xet = True
    monkeypatch.setitem(sys.modules, "hf_xet", FakeXet(DATA, stops=100_000).module())
    monkeypatch.setattr("wsd_local.library.download._xet_is_there", lambda: True)
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    assert stand_in.ranges() == ["bytes=100000-"]


def test_the_real_chunk_storage_module_is_called_as_it_wants(hub: Hub, stand_in: HubStandIn) -> None:
    stand_in.repos[REPO].xet = True
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    asked = [one.path for one in stand_in.log if "xet-read-token" in one.path]
    assert asked == [f"/api/models/{REPO}/xet-read-token/{COMMIT}"]
    assert stand_in.ranges() == [None]


# -- the rest ------------------------------------------------------------------------------------------------


def test_the_registry_is_plain_json(hub: Hub, tmp_path: Path) -> None:
    entry = hub.fetch(only(hub))
    (row,) = json.loads((tmp_path / "data" / "models.json").read_text())["models"]
    assert row["paths"] == [str(entry.path)]
    assert row["revision"] == COMMIT
