"""One rule for all text from outside: encodings, line ends, NUL, nesting, sizes."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.config import read_config
from wsd_local.datasets import read
from wsd_local.datasets.run_file import RunFile
from wsd_local.errors import ModelError, UsageError, WsdError
from wsd_local.files import read_memory
from wsd_local.library.catalog import read_base_format
from wsd_local.library.checkpoint import weights
from wsd_local.library.local import found_elsewhere
from wsd_local.library.registry import known
from wsd_local.reports.demo import load_questions
from wsd_local.reports.runs import read_run
from wsd_local.system import inputs
from wsd_local.system.inputs import decoded, plain, read_bytes, read_json, read_text, read_toml

ENCODINGS = {
    "utf-8": b"",
    "utf-8 with a mark": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
DEEP = "[" * 100_000


def saved(text: str, encoding: str) -> bytes:
    """A text as an editor of that encoding saves it."""
    return ENCODINGS[encoding] + text.encode(encoding.split(" ")[0])


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n\ufeff")), max_size=9))
def test_a_text_is_the_same_however_it_was_saved(encoding: str, lines: list[str]) -> None:
    for end in ("\n", "\r\n", "\r"):
        assert decoded(saved(end.join(lines), encoding), "x") == "\n".join(lines)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_what_is_plain_stays_so(text: str) -> None:
    assert plain(plain(text.removeprefix("\ufeff"))) == plain(text.removeprefix("\ufeff"))
    assert "\r" not in plain(text)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_text_or_refused_with_their_place(data: bytes) -> None:
    try:
        text = decoded(data, "p.txt")
    except UsageError as error:
        assert str(error).startswith("p.txt:") and len(str(error).splitlines()) == 1
    else:
        assert "\0" not in text and "\r" not in text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"one\r\ntwo\r\nthr\xff", "p.txt:3: is not UTF-8 at byte 13"),
        (b"one\rtwo\rthr\xff", "p.txt:3: is not UTF-8 at byte 11"),
        (codecs.BOM_UTF8 + b"a\n\xe2\x82", "p.txt:2: is not UTF-8 at byte 5"),
        (b"one\ntw\0o", "p.txt:2: holds a NUL character at column 3"),
        ("one\ntwo".encode("utf-16-le"), "p.txt:1: holds a NUL character at column 2"),
        (codecs.BOM_UTF16_LE + b"a\0\n\0b", "p.txt:2: is not UTF-16 at byte 6"),
        (codecs.BOM_UTF16_BE + b"\xd8\x00", "p.txt:1: is not UTF-16 at byte 2"),
    ],
)
def test_the_place_is_named(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decoded(data, "p.txt")


# -- every reader ----------------------------------------------------------------------------------------------


def _base_format(folder: Path, data: bytes) -> object:
    return read_base_format(_file(folder, "f.toml", data))


def _config(folder: Path, data: bytes) -> object:
    return read_config(_file(folder, "c.toml", data), {}).settings


def _jsonl(folder: Path, data: bytes) -> object:
    return [item.messages for item in read(_file(folder, "d.jsonl", data)).items]


def _csv(folder: Path, data: bytes) -> object:
    return [item.record for item in read(_file(folder, "d.csv", data)).items]


def _lines(folder: Path, data: bytes) -> object:
    return [item.messages for item in read(_file(folder, "d.txt", data)).items]


def _packed(folder: Path, data: bytes) -> object:
    return [item.messages for item in read(_file(folder, "d.gz", gzip.compress(data))).items]


def _json(folder: Path, data: bytes) -> object:
    return read_json(_file(folder, "j.json", data))


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


READERS: dict[Callable[[Path, bytes], object], str] = {
    _base_format: 'ending = """\n\n"""\nprefix = "ü"\n',
    _config: '[settings]\nstop = ["ü"]\nthreshold = 0.5\n',
    _jsonl: '{"prompt": "ü"}\n\n{"prompt": "b"}\n',
    _csv: 'id,prompt\n1,"zwei\nZeilen ü"\n',
    _lines: "ü\nzwei\n",
    _packed: "ü\nzwei\n",
    _json: '{"a":\n["ü"]}\n',
}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_every_reader_follows_the_rule(reader: Callable[[Path, bytes], object], tmp_path: Path) -> None:
    text = READERS[reader]
    expected = reader(tmp_path, text.encode())
    for encoding in ENCODINGS:
        for end in ("\n", "\r\n", "\r"):
            assert reader(tmp_path, saved(text.replace("\n", end), encoding)) == expected
    for bad in (text.encode().replace("ü".encode(), b"\xfc"), text.encode().replace("ü".encode(), b"\0")):
        with pytest.raises(UsageError, match=r":\d+: (is not UTF-8 at byte|holds a NUL)"):
            reader(tmp_path, bad)


def _weights(folder: Path) -> object:
    path = folder / "model.safetensors"
    path.write_bytes(path.stat().st_size.to_bytes(8, "little") + path.read_bytes())
    return weights(folder)


NESTED: list[tuple[str, Callable[[Path], object], type[Exception]]] = [
    ("models.json", lambda folder: known(), WsdError),
    ("model.safetensors.index.json", weights, ModelError),
    ("model.safetensors", _weights, ModelError),
    ("out.jsonl", lambda folder: RunFile(folder / "out.jsonl"), UsageError),
    ("run.jsonl", lambda folder: read_run(folder / "run.jsonl"), UsageError),
    ("questions.jsonl", lambda folder: load_questions(folder / "questions.jsonl"), ValueError),
]


@pytest.mark.parametrize(("name", "reader", "kind"), NESTED, ids=[name for name, _, _ in NESTED])
def test_deep_nesting_is_one_line_everywhere(
    name: str, reader: Callable[[Path], object], kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path))
    _file(tmp_path, name, DEEP.encode() + b"\n")
    with pytest.raises(kind):
        reader(tmp_path)


def test_deep_nesting_where_nothing_depends_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    (tmp_path / "manifests").mkdir()
    _file(tmp_path, "manifests/m", DEEP.encode())
    assert not [found for found in found_elsewhere() if found.program == "Ollama"]
    assert read_memory(_file(tmp_path, "memory", DEEP.encode())) == {}


def test_deep_nesting_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"j\.json:1: is not JSON \(it is nested too deeply\)"):
        read_json(_file(tmp_path, "j.json", DEEP.encode()))
    with pytest.raises(UsageError, match=r"t\.toml: is not TOML \(it is nested too deeply\)"):
        read_toml(_file(tmp_path, "t.toml", f"a = {DEEP}".encode()))
    with pytest.raises(UsageError, match=r"j\.json:3: is not JSON \(expecting value at column 2\)"):
        read_json(_file(tmp_path, "j.json", b"[1,\n2,\n x]"))


def test_what_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs.limited, "__defaults__", (1000,))
    monkeypatch.setattr(inputs.read_bytes, "__defaults__", (1000,))
    with pytest.raises(UsageError, match="which is the most that is read: split it"):
        read_text(_file(tmp_path, "a.txt", b"a" * 1001))
    assert len(read_text(_file(tmp_path, "a.txt", b"a" * 1000))) == 1000
    if os.path.exists("/dev/zero"):  # noqa: PTH110
        with pytest.raises(UsageError, match="which is the most that is read"):
            read_bytes(Path("/dev/zero"))


def test_a_packed_set_is_unpacked_no_further_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsd_local.datasets import records

    monkeypatch.setattr(records, "LARGEST", 1000)
    bomb = _file(tmp_path, "a.jsonl.gz", gzip.compress(json.dumps({"prompt": "a" * 50_000_000}).encode()))
    with pytest.raises(UsageError, match=r"a\.jsonl\.gz: has more than .* which is the most that is read"):
        read(bomb)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "a\0b"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_text(path)


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_lines_come_from_a_stream_as_from_a_whole(lines: list[bytes], step: int) -> None:
    from wsd_local.system import lines as stream

    data = b"".join(line.replace(b"\xff\xfe", b"").replace(b"\xfe\xff", b"") + b"\r\n" for line in lines)
    parts = io.BytesIO(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "read", lambda descriptor, _: parts.read(step))
        assert list(stream._split(0)) == data.splitlines()
