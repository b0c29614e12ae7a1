"""Data sets of the Hub by OWNER/NAME: which file is meant, that it is fetched once, and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import complains, wsd
from hub_stand_in import GOOD_TOKEN, Fault, HubStandIn, Repo

from wsd_local.datasets import hub_sets
from wsd_local.datasets.hub_sets import hub_set_path, names_hub_set
from wsd_local.errors import UsageError, WsdError
from wsd_local.paths import cache_dir

PAIRS = "".join(
    f"{json.dumps({'prompt': f'what is {n}', 'chosen': f'{n} is good', 'rejected': f'{n} is bad'})}\n" for n in range(9)
).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    files = {"README.md": b"#", "data/train.jsonl": PAIRS, "data/test.jsonl": PAIRS[:200], "run.py": b"evil"}
    with HubStandIn(**{"datasets/owner/Set": Repo(files)}) as found:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", found.url)
        monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub_sets, "WAITS", (0.0, 0.0))
        yield found


def test_a_set_is_prepared_and_fetched_once(hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = wsd("train", "prepare", "owner/Set", "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    source = json.loads(done.stdout)["source"]
    assert source["records"] == 9 and Path(source["path"]).read_bytes() == PAIRS
    assert Path(source["path"]).is_relative_to(cache_dir())
    fetched = len(hub.ranges())
    assert hub_set_path("owner/Set") == Path(source["path"]) and len(hub.ranges()) == fetched == 1
    asked = len(hub.log)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    assert hub_set_path("owner/Set") == hub_set_path("owner/Set:data/train.jsonl") == Path(source["path"])
    with pytest.raises(WsdError, match="HF_HUB_OFFLINE is set"):
        hub_set_path("owner/Set:data/test.jsonl")
    assert len(hub.log) == asked


def test_a_file_can_be_named_and_must_be_where_several_could_be_meant(hub: HubStandIn) -> None:
    assert hub_set_path("owner/Set:data/test.jsonl").read_bytes() == PAIRS[:200]
    with pytest.raises(UsageError, match=r"has no file 'x\.jsonl'; it has data/test\.jsonl, data/train\.jsonl$"):
        hub_set_path("owner/Set:x.jsonl")
    parts = {f"data/train-0000{n}-of-00002.parquet": b"PAR1" for n in range(2)}
    hub.repos["datasets/owner/Parts"] = Repo({**parts, "data/test-00000-of-00001.parquet": b"PAR1"})
    with pytest.raises(UsageError, match=r"several files: name one, as owner/Parts:data/train-00000-of-00002\.parquet"):
        hub_set_path("owner/Parts")
    hub.repos["datasets/owner/Pictures"] = Repo({"a.png": b"x", "dataset_infos.json": b"{}"})
    with pytest.raises(UsageError, match=r"holds no JSONL, JSON or Parquet file; it has a\.png"):
        hub_set_path("owner/Pictures")


def test_failures_are_one_line_and_leave_nothing(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complains(wsd("train", "prepare", "owner/Other", "--out", str(tmp_path / "out")), 1, "owner/Other does not exist")
    hub.repos["datasets/owner/Set"].gated = True
    complains(wsd("train", "prepare", "owner/Set", "--out", str(tmp_path / "out")), 1, "is gated", "datasets/owner/Set")
    hub.repos["datasets/owner/Set"].gated = False
    hub.next["get"].append(Fault(cut=100))
    assert hub_set_path("owner/Set").read_bytes() == PAIRS
    assert not list(tmp_path.rglob("*.part"))
    assert GOOD_TOKEN not in str(hub.log)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("owner/Set", True),
        ("owner/Set-v1.5", True),
        ("owner/Set:data/a.jsonl", True),
        ("folder/pairs.jsonl", False),
        ("folder/pairs.parquet", False),
        ("hh_rlhf", False),
        ("a/b/c", False),
        ("./Set", False),
        ("/tmp/Set", False),
    ],
)
def test_what_could_be_a_file_is_none_of_the_hub(text: str, is_one: bool) -> None:
    assert names_hub_set(text) is is_one


def test_a_folder_that_is_there_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "Set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not names_hub_set("owner/Set")
