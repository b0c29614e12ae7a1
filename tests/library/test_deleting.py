"""What `models rm` deletes, and what it only forgets."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import wsd

from wsd_local.library.fetched import Fetched, mark, record, recorded
from wsd_local.library.local import found_elsewhere, remove
from wsd_local.library.registry import Known, change_transfers, known, remember, transfers
from wsd_local.paths import made_models_dir


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and folders of its own."""
    folders = {"HOME": "home", "WSD_LOCAL_DATA": "data", "WSD_LOCAL_CACHE": "cache", "HF_HOME": "hf"}
    for variable, name in folders.items():
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


COMMIT = "c0ffee" + "0" * 34


def transferred(cache: Path, revision: str = COMMIT, *, wrote: bool = True) -> Path:
    """A file in the Hub's cache, recorded as a transfer of ours would; `wrote` if its bytes were not there before."""
    entry = Fetched(cache, "o/n", revision, "m.gguf", "ab" * 32, 1000, "ab" * 32, None, True)
    entry.bytes.parent.mkdir(parents=True, exist_ok=True)
    entry.pointer.parent.mkdir(parents=True, exist_ok=True)
    if not entry.bytes.exists():
        entry.bytes.write_bytes(b"x" * 1000)
    entry.pointer.symlink_to(os.path.relpath(entry.bytes, entry.pointer.parent))
    record(replace(entry, written=mark(entry.bytes.stat()) if wrote else None))
    return entry.pointer


def test_rm_deletes_what_was_fetched_or_made_and_says_what_it_frees(tmp_path: Path) -> None:
    link = transferred(tmp_path / "hf" / "hub")
    blob = link.resolve()
    made_models_dir().mkdir(parents=True)
    made = made_models_dir() / "made.gguf"
    made.write_bytes(b"y" * 500)
    elsewhere = tmp_path / "elsewhere.gguf"
    elsewhere.write_bytes(b"z")
    remember(Known("pulled", (link,), "pulled", "o/n", COMMIT))
    unrecorded = made.with_name("unrecorded.gguf")
    unrecorded.write_bytes(b"z")
    remember(Known("made", (made,), "made", written=mark(made.stat())))
    remember(Known("unrecorded", (unrecorded,), "made"))
    remember(Known("made-elsewhere", (elsewhere,), "made"))
    refused = wsd("models", "rm", "pulled")
    assert refused.returncode == 2 and b"confirm with --yes" in refused.stderr and blob.exists()
    assert wsd("models", "rm", "pulled", "--yes").stdout == b"pulled: forgotten, 1.0 kB freed\n"
    assert not link.is_symlink() and not blob.exists() and recorded() == []
    assert remove("made").freed == 500 and not made.exists()
    assert remove("unrecorded").reasons == ("it is not recorded that this program made it",) and unrecorded.exists()
    assert remove("made-elsewhere").freed == 0 and elsewhere.exists()
    assert known() == {}


def test_rm_keeps_bytes_that_another_name_or_revision_needs(tmp_path: Path) -> None:
    cache = tmp_path / "hf" / "hub"
    first, again = transferred(cache), transferred(cache, "0" * 40, wrote=False)
    blob = first.resolve()
    remember(Known("first", (first,), "pulled", "o/n", COMMIT))
    remember(Known("twice", (first,), "pulled", "o/n", COMMIT))
    remember(Known("again", (again,), "pulled", "o/n", "0" * 40))
    remember(Known("own", (blob,), "imported"))
    assert remove("twice").deleted == () and first.is_symlink()
    assert remove("own").deleted == () and blob.exists()
    assert remove("first").deleted == (first,) and blob.exists() and again.exists()
    assert remove("again").deleted == (again, blob), "the last name of bytes that were fetched for the first"


@pytest.mark.parametrize(
    "case",
    ["not recorded", "another commit", "other bytes", "another file", "hard link", "link out", "folder out", "forged"],
)
def test_rm_forgets_and_keeps_what_is_not_ours(tmp_path: Path, case: str) -> None:
    cache = tmp_path / "hf" / "hub"
    link = transferred(cache)
    blob = link.resolve()
    status, foreign = blob.stat(), tmp_path / "foreign.gguf"
    foreign.write_bytes(b"f" * 1000)
    os.utime(foreign, ns=(status.st_mtime_ns, status.st_mtime_ns))
    entry = Known("pulled", (link,), "pulled", "o/n", COMMIT)
    kept = [foreign]
    if case == "not recorded":
        change_transfers(lambda _: [])
        kept += [link, blob]
    elif case == "another commit":
        entry = replace(entry, revision="0" * 40)
        kept += [link, blob]
    elif case == "other bytes":
        blob.write_bytes(b"o" * 1000)
        kept += [blob]
    elif case == "another file":
        foreign.replace(blob)
        kept = [blob]
    elif case == "hard link":
        os.link(blob, tmp_path / "name")
        kept += [blob]
    elif case == "link out":
        link.unlink()
        link.symlink_to(foreign)
        kept += [link, blob]
    elif case == "folder out":
        blob.parent.rename(tmp_path / "blobs")
        blob.parent.symlink_to(tmp_path / "blobs")
        kept += [link, tmp_path / "blobs" / blob.name]
    elif case == "forged":
        entry = Known("pulled", (foreign,), "pulled", "o/n", COMMIT)
        row = {**transfers()[0], "file": "../../../../../foreign.gguf", "linked": False}
        change_transfers(lambda rows: [*rows, row, {**row, "repo": "../.."}, 7, {"cache": None}])
        kept += [link, blob]
    remember(entry)
    done = wsd("models", "rm", "pulled", "--yes")
    assert done.returncode == 0 and done.stdout == b"pulled: forgotten, 0 B freed\n"
    if link not in kept and case != "another file":
        assert f"deletes {link}" in done.stderr.decode()
    elif link in kept:
        assert f"keeps {entry.path}: " in done.stderr.decode()
    assert "pulled" not in known() and all(os.path.lexists(path) for path in kept)


@pytest.mark.parametrize("case", ["replaced", "link", "elsewhere"])
def test_rm_keeps_what_only_seems_to_be_made_here(tmp_path: Path, case: str) -> None:
    made_models_dir().mkdir(parents=True)
    made, other = made_models_dir() / "made.gguf", tmp_path / "other.gguf"
    made.write_bytes(b"y" * 500)
    other.write_bytes(b"z" * 500)
    entry = Known("made", (made,), "made", written=mark(made.stat()))
    if case == "replaced":
        other.replace(made)
    elif case == "link":
        made.unlink()
        made.symlink_to(other)
    else:
        entry = replace(entry, paths=(made_models_dir() / ".." / ".." / "other.gguf",))
    remember(entry)
    assert remove("made").deleted == ()
    assert made.exists() and (case == "replaced" or other.exists())


@pytest.mark.parametrize("digest", ["../../../../secret", "sha256:../../secret", "sha256:" + "A" * 64, 7, None])
def test_a_digest_of_ollama_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: Any) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    manifest = tmp_path / "ollama" / "manifests" / "registry" / "library" / "m" / "latest"
    good = "sha256:" + "a" * 64
    blobs = tmp_path / "ollama" / "blobs"
    for folder in (manifest.parent, blobs):
        folder.mkdir(parents=True)
    for path in (tmp_path / "secret", blobs / "7", blobs / "None", blobs / good.replace(":", "-")):
        path.write_bytes(b"GGUF")
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": one} for one in (digest, good)]
    manifest.write_text(json.dumps({"layers": layers}))
    assert [found.path for found in found_elsewhere() if found.program == "Ollama"] == [blobs / good.replace(":", "-")]
