"""A Hub that lies, files that are not ours in its cache, and models whose bytes are known in advance."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import wsd
from hub_stand_in import COMMIT, GOOD_TOKEN, Fault, HubStandIn, Repo

from wsd_local import files
from wsd_local.errors import ModelError, WsdError
from wsd_local.files import file_sha256, known_sha256
from wsd_local.library.catalog import ModelEntry, catalog_models
from wsd_local.library.fetched import recorded
from wsd_local.library.hub import Download, Hub
from wsd_local.library.local import remove
from wsd_local.library.registry import known
from wsd_local.library.repo_files import is_safe
from wsd_local.library.resolve import local_path
from wsd_local.runtime.pair import load

REPO = "owner/Name-GGUF"
FILE = "Name.Q4_K_M.gguf"
SIZE = 300_000
DATA = b"GGUF" + random.Random(1).randbytes(SIZE - 4)
OTHER = b"GGUF" + random.Random(2).randbytes(SIZE - 4)


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has folders of its own, and asks nobody but the stand-in."""
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stand_in() -> Iterator[HubStandIn]:
    with HubStandIn(**{REPO: Repo({FILE: DATA, "README.md": b"hello"})}) as hub:
        yield hub


@pytest.fixture
def hub(stand_in: HubStandIn, tmp_path: Path) -> Hub:
    return Hub(stand_in.url, tmp_path / "hub", waits=(0.0, 0.0))


def only(hub: Hub, what: str = REPO, name: str | None = None) -> Download:
    """The one download of a plan."""
    (download,) = hub.plan(what, name).downloads
    return download


def storage(tmp_path: Path) -> Path:
    """The repository's folder in the cache."""
    return tmp_path / "hub" / "models--owner--Name-GGUF"


def brought_by_another(tmp_path: Path, data: bytes, commit: str = COMMIT) -> tuple[Path, Path]:
    """A file of the repository that another program put into the cache: the link, and the bytes under their name."""
    blob = storage(tmp_path) / "blobs" / hashlib.sha256(DATA).hexdigest()
    link = storage(tmp_path) / "snapshots" / commit / FILE
    for folder in (blob.parent, link.parent):
        folder.mkdir(parents=True)
    blob.write_bytes(data)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link, blob


def rewrite(path: Path, data: bytes) -> None:
    """Other bytes in the same file, of the same time."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# -- hashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [True, False])
def test_a_remembered_hash_is_of_these_bytes(tmp_path: Path, in_place: bool) -> None:
    path, progress = tmp_path / "m.gguf", []
    path.write_bytes(DATA)
    before = path.stat()
    assert file_sha256(path) == hashlib.sha256(DATA).hexdigest() == known_sha256(path)
    assert file_sha256(path, progress=lambda done, total: progress.append(done)) and progress == []
    if in_place:
        rewrite(path, OTHER)
    else:
        (tmp_path / "n").write_bytes(OTHER)
        os.utime(tmp_path / "n", ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "n").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert known_sha256(path) is None
    assert file_sha256(path) == hashlib.sha256(OTHER).hexdigest()


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(DATA)
    file_sha256(path, progress=lambda done, total: rewrite(path, OTHER))
    assert known_sha256(path) is None


def test_the_memory_holds_one_hash_for_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for data in (DATA, OTHER, DATA):
        path.write_bytes(data)
        file_sha256(path)
    assert len(json.loads((tmp_path / "cache" / "sha256.json").read_text())) == 1


def test_what_was_fetched_is_not_read_again_to_be_hashed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = hub.fetch(only(hub))
    monkeypatch.setattr(files, "_digest", None)
    assert file_sha256(entry.path) == hashlib.sha256(DATA).hexdigest()


def test_show_says_whether_the_hash_is_known(hub: Hub) -> None:
    told = json.loads(wsd("models", "show", "demo-draft", "--json").stdout)
    assert told["sha256"] == {"draft-q8_0.gguf": None} and told["pinned"] is None
    assert "not known yet" in wsd("models", "show", "demo-draft").stdout.decode()
    digest = file_sha256(Path(told["path"]))
    assert json.loads(wsd("models", "show", "demo-draft", "--json").stdout)["sha256"] == {"draft-q8_0.gguf": digest}
    assert digest in wsd("models", "show", "demo-draft").stdout.decode()


# -- a Hub that lies -------------------------------------------------------------------------------------------------


def test_bytes_that_change_within_a_transfer(hub: Hub, stand_in: HubStandIn, tmp_path: Path) -> None:
    stand_in.next["get"] += [Fault(cut=1000), Fault(content=OTHER)]
    with pytest.raises(WsdError, match=r"the bytes are wrong .*SHA-256.* were removed"):
        hub.fetch(only(hub))
    assert not list((storage(tmp_path) / "blobs").iterdir()) and known() == {} and recorded() == []
    assert hub.fetch(only(hub)).path.read_bytes() == DATA


def test_bytes_that_change_before_a_transfer_goes_on(hub: Hub, stand_in: HubStandIn, tmp_path: Path) -> None:
    """What is here of a broken transfer was changed by somebody; the rest comes as it should."""
    stand_in.next["get"] += [Fault(cut=1000), Fault(status=404)]
    with pytest.raises(WsdError):
        hub.fetch(only(hub))
    (part,) = (storage(tmp_path) / "blobs").iterdir()
    rewrite(part, OTHER[:1000])
    with pytest.raises(WsdError, match=r"the bytes are wrong .*SHA-256"):
        hub.fetch(only(hub))
    assert stand_in.ranges()[-1] == "bytes=1000-"


@pytest.mark.parametrize("data", [OTHER, DATA[:-1] + b"x"])
def test_a_file_in_git_is_checked_by_the_hash_of_git(
    hub: Hub, stand_in: HubStandIn, tmp_path: Path, data: bytes
) -> None:
    stand_in.repos[REPO].lfs = False
    stand_in.next["get"] += [Fault(content=data)]
    with pytest.raises(WsdError, match=r"the bytes are wrong .*hash in git"):
        hub.fetch(only(hub))
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    rewrite(known()["name.q4_k_m"].path.resolve(), data)
    with pytest.raises(WsdError, match="hash in git"):
        hub.fetch(only(hub))


def test_bytes_of_ours_that_were_changed_are_fetched_again(hub: Hub, stand_in: HubStandIn, tmp_path: Path) -> None:
    path = hub.fetch(only(hub)).path
    rewrite(path.resolve(), OTHER)
    with pytest.raises(WsdError, match=r"the bytes are wrong .* they were removed"):
        hub.fetch(only(hub))
    assert not path.is_symlink() and not list((storage(tmp_path) / "blobs").iterdir())
    assert hub.fetch(only(hub)).path.read_bytes() == DATA


def test_the_token_goes_to_the_hubs_own_door_to_the_chunk_storage(
    stand_in: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.repos[REPO].xet = True
    monkeypatch.setattr("wsd_local.library.download._xet_is_there", lambda: True)
    route = {"X-Xet-Refresh-Route": "https://evil.example/token", "X-Xet-Hash": "a" * 64, "X-Repo-Commit": COMMIT}
    digest = hashlib.sha256(DATA).hexdigest()
    headers = {**route, "X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(SIZE)}
    stand_in.always["head"] = Fault(status=200, headers=headers)
    hub = Hub(stand_in.url, tmp_path / "hub", GOOD_TOKEN, (0.0,))
    assert only(hub).files[0].xet is None
    assert hub.fetch(only(hub)).path.read_bytes() == DATA


def test_a_link_in_the_place_of_an_unfinished_file_is_not_written_through(hub: Hub, tmp_path: Path) -> None:
    foreign = tmp_path / "precious"
    foreign.write_bytes(b"precious")
    part = storage(tmp_path) / "blobs" / f"{hashlib.sha256(DATA).hexdigest()}.wsd-local.incomplete"
    part.parent.mkdir(parents=True)
    part.symlink_to(foreign)
    assert hub.fetch(only(hub)).path.read_bytes() == DATA
    assert foreign.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "path",
    ["NUL.gguf", "nul", "a/CON", "Com1.tar.gguf", "lpt9 .gguf", "conin$", "a./b.gguf", "a .gguf/b ", "b.", "b ", "..."]
    + [f"a{sign}b.gguf" for sign in ':*?"<>|\\'],
)
def test_names_that_are_another_file_elsewhere(path: str) -> None:
    assert not is_safe(path)


@pytest.mark.parametrize("path", ["nule.gguf", "console.gguf", "com10", "a.b/.c/d e.gguf", "aux-1.gguf", "ü.gguf"])
def test_names_that_are_the_same_everywhere(path: str) -> None:
    assert is_safe(path)


# -- files of other programs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("linked", [True, False])
def test_wrong_bytes_of_another_program_stay(hub: Hub, tmp_path: Path, linked: bool) -> None:
    link, blob = brought_by_another(tmp_path, OTHER, COMMIT if linked else "0" * 40)
    with pytest.raises(WsdError, match=r"another program brought or changed them.*remove") as caught:
        hub.fetch(only(hub))
    assert str(blob) in str(caught.value)
    assert blob.read_bytes() == OTHER and link.is_symlink() and known() == {}


@pytest.mark.parametrize("linked", [True, False])
def test_right_bytes_of_another_program_are_used_and_never_deleted(
    hub: Hub, stand_in: HubStandIn, tmp_path: Path, linked: bool
) -> None:
    link, blob = brought_by_another(tmp_path, DATA, COMMIT if linked else "0" * 40)
    entry = hub.fetch(only(hub))
    assert stand_in.ranges() == [] and entry.path.read_bytes() == DATA
    done = remove(entry.name)
    assert done.freed == 0 and blob.read_bytes() == DATA and link.read_bytes() == DATA
    assert entry.path.is_symlink() == linked, "a link of ours goes, of another program stays"


def test_what_leads_out_of_the_cache_is_used_and_stays(hub: Hub, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.gguf"
    foreign.write_bytes(DATA)
    pointer = storage(tmp_path) / "snapshots" / COMMIT / FILE
    pointer.parent.mkdir(parents=True)
    pointer.symlink_to(foreign)
    entry = hub.fetch(only(hub))
    assert remove(entry.name).deleted == () and foreign.exists() and pointer.exists()


def test_what_was_fetched_is_deleted_with_its_name(hub: Hub, tmp_path: Path) -> None:
    entry = hub.fetch(only(hub))
    blob = entry.path.resolve()
    (row,) = recorded()
    assert (row.repo, row.revision, row.file, row.size) == (REPO, COMMIT, FILE, SIZE)
    assert (row.blob, row.sha256, row.bytes, row.pointer) == (blob.name, blob.name, blob, entry.path)
    done = remove(entry.name)
    assert done.deleted == (entry.path, blob) and done.freed == SIZE
    assert not blob.exists() and recorded() == [] and hub.fetch(only(hub)).path.read_bytes() == DATA


def test_parts_that_came_before_an_interruption_are_ours(hub: Hub, stand_in: HubStandIn, tmp_path: Path) -> None:
    stand_in.repos[REPO].files = {f"B-0000{i}-of-00002.gguf": DATA + bytes([i]) for i in (1, 2)}
    stand_in.next["get"] += [Fault(), Fault(status=404)]
    with pytest.raises(ModelError):
        hub.fetch(only(hub))
    entry = hub.fetch(only(hub))
    assert remove(entry.name).freed == 2 * (SIZE + 1)
    assert not [path for path in (storage(tmp_path) / "blobs").iterdir() if path.is_file()]


# -- pins ------------------------------------------------------------------------------------------------------------

PINNED = "b" * 40


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> ModelEntry:
    """A model of the catalog whose commit and bytes are known."""
    digest = hashlib.sha256(DATA).hexdigest()
    entry = ModelEntry("known", "draft", "mit", "Q4_K_M", "1B", 1024, None, REPO, FILE, PINNED, digest, SIZE)
    models = catalog_models() | {"known": entry}
    for module in ("resolve", "hub"):
        monkeypatch.setattr(f"wsd_local.library.{module}.catalog_models", lambda: models)
    return entry


def test_a_pinned_model_is_of_its_commit(hub: Hub, stand_in: HubStandIn, pinned: ModelEntry, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a file or revision of it is not there any more|does not exist"):
        stand_in.always["api"] = Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        hub.plan("known")
    stand_in.always.clear()
    with pytest.raises(WsdError, match="does not answer as the Hub does"):
        hub.plan("known")  # it answers with another commit
    stand_in.repos[REPO].commit = PINNED
    stand_in.log.clear()
    download = only(hub, "known")
    assert (download.revision, download.name) == (PINNED, "known")
    assert stand_in.log[0].path.endswith(f"/revision/{PINNED}")
    path = hub.fetch(download).path
    assert path.read_bytes() == DATA and local_path(pinned) == path
    assert not (storage(tmp_path) / "refs" / "main").exists(), "it is not the main branch's newest"


@pytest.mark.parametrize("lfs", [True, False])
@pytest.mark.parametrize("what", ["known", REPO])
def test_other_bytes_than_the_pinned_are_refused(
    hub: Hub, stand_in: HubStandIn, pinned: ModelEntry, what: str, lfs: bool
) -> None:
    stand_in.repos[REPO] = Repo({FILE: OTHER}, commit=PINNED, lfs=lfs)
    with pytest.raises(WsdError, match="other bytes than the catalog knows" if lfs else "the bytes are wrong"):
        hub.fetch(only(hub, what))
    assert known() == {} and stand_in.ranges() == ([] if lfs else [None])


@pytest.mark.parametrize("name", [name for name, entry in catalog_models().items() if entry.sha256])
def test_pins_of_the_catalog_are_whole(name: str) -> None:
    """The hash of the bytes is known; the commit may be missing, since no other bytes are taken."""
    entry = catalog_models()[name]
    assert entry.sha256 is not None and entry.file is not None
    pins = [(entry.sha256, 64), *([] if entry.revision is None else [(entry.revision, 40)])]
    for value, length in pins:
        assert len(value) == length and set(value) <= set("0123456789abcdef")
    assert entry.size is not None and entry.size % 1000, "a size that is known to the byte"


def test_list_says_what_is_not_pinned() -> None:
    rows = {row["name"]: row["pinned"] for row in json.loads(wsd("models", "list", "--json").stdout)["models"]}
    assert rows == {name: entry.pinned for name, entry in catalog_models().items()}
    assert rows["qwen3-1.7b"] is True and rows["llama-3.1-8b"] is False and rows["demo-base"] is None
    shown = wsd("models", "list").stdout.decode()
    lines = {name: line for line in shown.splitlines() for name in rows if line.startswith(f"{name} ")}
    assert "not pinned" in lines["llama-3.1-8b"] and "not pinned" not in lines["qwen3-1.7b"]


# -- provenance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", ["both", "one"])
def test_provenance_tells_no_hash_of_another_file(tmp_path: Path, demo_q8: tuple[Path, Path], resident: str) -> None:
    draft, base = (tmp_path / path.name for path in demo_q8)
    for source, target in zip(demo_q8, (draft, base), strict=True):
        target.write_bytes(source.read_bytes())
    with load(draft=draft, base=base, threads=1, resident=resident) as pair:
        pair.models.load()
        pair.models.hash_files()
        assert pair.models.hashes == {"draft": file_sha256(draft), "base": file_sha256(base)}
        replacement = tmp_path / "other"
        replacement.write_bytes(base.read_bytes() + b"x")
        replacement.replace(base)
        pair.models.hash_files()
        assert pair.models.hashes == {"draft": file_sha256(draft)}
        assert pair.reply("Hi", max_tokens=4).provenance["base_sha256"] is None
