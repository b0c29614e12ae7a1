"""The strict reader of GGUF headers, and what it says of files that cannot be true."""

from __future__ import annotations

import math
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damage import variants
from data_sets import vocabularies
from gguf import GGUFReader, GGUFValueType
from gguf_layouts import huge, split_in_three
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import damaged, packed, packed_string, random_llama, strings

from wsd_local.errors import ModelError
from wsd_local.library.gguf import Array, Value, look_at, read_header, read_model
from wsd_local.placement.footprint import footprint


def test_it_reads_what_the_gguf_package_reads(demo_q8: tuple[Path, Path]) -> None:
    for path in demo_q8:
        ours, theirs = read_header(path), GGUFReader(path)
        assert ours.metadata.keys() == {key for key in theirs.fields if not key.startswith("GGUF.")}
        for key, value in ours.metadata.items():
            field = theirs.fields[key]
            if not isinstance(value, Array):
                assert value == field.contents()
            elif value.kind.name == "STRING":
                assert list(strings(value)) == field.contents()
            else:
                assert value.numbers().tolist() == field.contents()
        assert [(t.name, t.shape, t.type, t.size) for t in ours.tensors] == [
            (t.name, tuple(t.shape.tolist()), t.tensor_type.name, t.n_bytes) for t in theirs.tensors
        ]
        start = theirs.tensors[0].data_offset - ours.tensors[0].offset
        assert [start + t.offset for t in ours.tensors] == [t.data_offset for t in theirs.tensors]


def test_real_vocabularies_are_read() -> None:
    found = vocabularies()
    assert found
    for vocab in found:
        tokens = read_header(vocab).metadata["tokenizer.ggml.tokens"]
        assert isinstance(tokens, Array)
        assert len(list(strings(tokens))) == tokens.count > 30_000


def test_only_the_header_is_read(tmp_path: Path) -> None:
    """Forty gigabytes of which only the beginning is on the disk."""
    path = huge(tmp_path / "huge.gguf")
    assert path.stat().st_size > 40_000_000_000
    header = read_header(path)
    assert header.size < 4096
    assert header.tensors[-1].size > 39_000_000_000


def test_files_that_are_none(tmp_path: Path, demo_q8: tuple[Path, Path]) -> None:
    said = {}
    for kind, path in damaged(demo_q8[0], tmp_path).items():
        with pytest.raises(ModelError) as error:
            read_header(path)
        said[kind] = str(error.value)
    assert "the end is missing" in said["truncated"]
    assert "is empty" in said["empty"]
    assert "not a GGUF file" in said["text"] and "not a GGUF file" in said["wrong_magic"]
    with pytest.raises(ModelError, match="no such file"):
        look_at(tmp_path / "none.gguf")
    with pytest.raises(ModelError, match="is not a file"):
        look_at(tmp_path)


def test_every_length_of_a_truncated_header_is_refused(tmp_path: Path) -> None:
    whole = random_llama(tmp_path / "whole.gguf", n_embd=32, n_layer=1, n_head=2, n_ff=32)
    data, size = whole.read_bytes(), read_header(whole).size
    short = tmp_path / "short.gguf"
    for length in [*range(0, 400), *range(size - 400, size), len(data) - 32]:
        short.write_bytes(data[:length])
        with pytest.raises(ModelError) as error:
            read_header(short)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("at", "code", "value", "words"),
    [
        (4, "I", 1, "version 1"),
        (4, "I", 3 << 24, "big-endian"),
        (8, "Q", 2**40, "tensors"),
        (16, "Q", 2**40, "entries"),
        (24, "Q", 2**63, "bytes long"),
        (24, "Q", 0, "has no name"),
    ],
)
def test_lies_are_named(tmp_path: Path, demo_q8: tuple[Path, Path], at: int, code: str, value: int, words: str) -> None:
    data = bytearray(demo_q8[0].read_bytes())
    struct.pack_into(f"<{code}", data, at, value)
    path = tmp_path / "lie.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=words):
        read_header(path)


def sparse(path: Path, entries: bytes, keys: int, size: int) -> Path:
    """A header of `keys` entries that goes on with zeros, of which only the beginning is on the disk."""
    with path.open("wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", 3, 0, keys) + entries)
        out.truncate(size)
    return path


SIZE = 264_000_000
SPARSE = {
    "strings": struct.pack("<IIQ", 9, 8, 32_000_000),
    "numbers": struct.pack("<IIQ", 9, 12, 33_000_000),
    "bytes": struct.pack("<IIQ", 9, 0, 1 << 26),
    "a string": struct.pack("<IQ", 8, SIZE - 100),
}


@pytest.mark.parametrize("value", SPARSE.values(), ids=SPARSE)
def test_a_large_header_of_nothing_is_refused_before_it_is_read(tmp_path: Path, value: bytes) -> None:
    path = sparse(tmp_path / "sparse.gguf", packed_string("x") + value, 1, SIZE)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="is damaged: x "):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_many_arrays_that_are_small_enough_are_too_many_together(tmp_path: Path) -> None:
    """A budget for all of a header: nothing that it says of itself costs more."""
    strings = [packed_string(f"s{i}") + struct.pack("<IIQ", 9, 8, 1 << 20) + bytes(8 << 20) for i in range(3)]
    path = sparse(tmp_path / "strings.gguf", b"".join(strings), 3, SIZE)
    with pytest.raises(ModelError, match="s2 has 1048576 strings, and all arrays can have 2097152"):
        read_header(path)
    bytes_ = [packed_string(f"b{i}") + struct.pack("<IIQ", 9, 12, 1 << 22) + bytes(1 << 25) for i in range(2)]
    path = sparse(tmp_path / "bytes.gguf", b"".join(bytes_), 2, SIZE)
    with pytest.raises(ModelError, match="its header is longer than 64 MiB"):
        read_header(path)


@pytest.mark.parametrize("vocabulary", [262_144, 524_288])
def test_a_large_vocabulary_is_read(tmp_path: Path, vocabulary: int) -> None:
    tokens = b"".join(packed_string(f"token{i}") for i in range(vocabulary))
    merges = b"".join(packed_string(f"tok en{i}") for i in range(vocabulary * 2))
    entries = packed_string("tokens") + struct.pack("<IIQ", 9, 8, vocabulary) + tokens
    entries += packed_string("merges") + struct.pack("<IIQ", 9, 8, vocabulary * 2) + merges
    header = read_header(sparse(tmp_path / "large.gguf", entries, 2, len(entries) + 1000))
    found = header.metadata["merges"]
    assert isinstance(found, Array) and found.count == vocabulary * 2


def test_parts_that_are_wrong_are_named(tmp_path: Path) -> None:
    path = random_llama(tmp_path / "m.gguf")
    lies: dict[str, str | float | bool] = {"split.count": "3", "split.no": 0.5, "split.tensors.count": True}
    for key, value in lies.items():
        data = path.read_bytes()
        first = read_header(path).tensors[0].name
        at = data.index(struct.pack("<Q", len(first)) + first.encode())
        lie = data[:16] + struct.pack("<Q", len(read_header(path).metadata) + 1) + data[24:at]
        (tmp_path / "lie.gguf").write_bytes(lie + packed_string(key) + packed(value) + data[at:] + bytes(64))
        with pytest.raises(ModelError, match=rf"lie\.gguf: is damaged: {key} is .* and must be a whole number"):
            read_model(tmp_path / "lie.gguf")
    many = split_in_three(path, tmp_path / "model")[0]
    many.write_bytes(
        many.read_bytes().replace(
            packed_string("split.count") + struct.pack("<IH", 2, 3),
            packed_string("split.count") + struct.pack("<IH", 2, 60_000),
        )
    )
    with pytest.raises(ModelError, match="60000 parts"):
        read_model(many)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_make_it_stumble(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    for content in (data, b"GGUF\x03\0\0\0" + data, b"GGUF\x03\0\0\0" + struct.pack("<QQ", 1, 2) + data):
        path.write_bytes(content)
        try:
            assert read_header(path).size <= len(content)
        except ModelError as error:
            assert "\n" not in str(error)


def test_damaged_variants_are_read_or_refused_in_one_line(tmp_path: Path, demo_q8: tuple[Path, Path]) -> None:
    path, refused, count = tmp_path / "variant.gguf", 0, 0
    for _, content in variants(demo_q8[0], 120, seed=7):
        path.write_bytes(content)
        count += 1
        try:
            read_header(path)
        except ModelError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert count > 600
    assert 0.5 * count < refused < count


def test_a_split_model_is_read_whole(tmp_path: Path) -> None:
    parts = split_in_three(random_llama(tmp_path / "whole.gguf"), tmp_path / "model")
    assert [header.path for header in read_model(parts[0])] == parts
    whole = read_header(tmp_path / "whole.gguf")
    found = [tensor.name for header in read_model(parts[0]) for tensor in header.tensors]
    assert sorted(found) == sorted(tensor.name for tensor in whole.tensors)
    with pytest.raises(ModelError, match="name the first part, model-00001-of-00003"):
        read_model(parts[1])
    parts[2].rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(ModelError, match="1 of 3 parts are missing"):
        read_model(parts[0])
    with pytest.raises(ModelError, match="give the parts their names back"):
        read_model(tmp_path / "elsewhere.gguf")


def test_numbers_of_arrays_are_exact(tmp_path: Path) -> None:
    path = random_llama(tmp_path / "m.gguf")
    types = read_header(path).metadata["tokenizer.ggml.token_type"]
    assert isinstance(types, Array)
    assert types.numbers().dtype == np.dtype("<i4")
    assert types.numbers().size == types.count


@pytest.mark.parametrize("name", ["context_length", "embedding_length", "feed_forward_length", "attention.head_count"])
def test_counting_memory_refuses_what_is_no_whole_number(name: str, demo_q8: tuple[Path, Path]) -> None:
    (header,) = read_model(demo_q8[0])
    key = f"{header.architecture}.{name}"
    one = {GGUFValueType.STRING: packed_string("a"), GGUFValueType.FLOAT32: b"\0\0\xc0\x7f", GGUFValueType.BOOL: b"\1"}
    lists = [Array(kind, 1, data) for kind, data in one.items()]
    values: list[Value] = [*lists, True, 1.5, math.nan, "a"]
    for value in values:
        with pytest.raises(ModelError, match=f"is damaged: {key} is"):
            footprint([replace(header, metadata={**header.metadata, key: value})])
    assert footprint([header]) == footprint([replace(header, metadata={**header.metadata, "other": math.nan})])


def test_counting_memory_makes_no_layers_that_only_a_name_states(demo_q8: tuple[Path, Path]) -> None:
    (header,) = read_model(demo_q8[0])
    first = header.tensors[0]
    with pytest.raises(ModelError, match="is damaged: it says that it has 10000000000 layers"):
        footprint([replace(header, tensors=(*header.tensors, replace(first, name="blk.9999999999.attn_k.weight")))])
    bare = replace(first, name="blk.0.attn_k.weight", shape=())
    assert footprint([replace(header, tensors=(bare,))]).layers[0].key == 1
