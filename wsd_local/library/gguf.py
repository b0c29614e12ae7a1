"""The header of a GGUF file, read strictly.

Contract: `read_header` reads the header only, however large the file, believes no length before it is checked against
the file's size, and raises `ModelError` in one line for everything that cannot be true. `read_model` also finds the
other parts of a split model. No llama.cpp: the format is that of `ggml/docs/gguf.md`, sizes of types are the `gguf`
package's.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGUFValueType

from wsd_local.errors import ModelError, printable, reason

LARGEST_HEADER = 1 << 26
"""Bytes, of all parts of a model together. A vocabulary of 262,144 tokens with its merges takes about 2^24."""
_MOST_TENSORS, _MOST_KEYS, _MOST_PARTS = 1 << 15, 1 << 13, 1 << 10
_MOST_ELEMENTS, _MOST_STRINGS = 1 << 22, 1 << 21
"""Numbers of one array, and strings of all arrays together: that vocabulary has 786,432 with its merges."""
_LONGEST_KEY, _LONGEST_TENSOR_NAME, _LONGEST_STRING = (1 << 16) - 1, 63, 1 << 22
_BLOCK = 1 << 20
_LONGEST_REASON = 200
_LENGTH = struct.Struct("<Q")
_SPLIT = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_NEWER_TYPES = {42: ("Q2_0", 64, 18)}
"""Types that llama.cpp knows and the `gguf` package does not yet: numbers per block and bytes of one."""
MAPPABLE = 32
"""Alignment, in bytes, that llama.cpp needs to use a mapped file; with less it must be read."""
SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
"""How `struct` names the scalar types."""


@dataclass(frozen=True, slots=True)
class Array:
    """A metadata array: its element type, how many there are, and their bytes as stored."""

    kind: GGUFValueType
    count: int
    data: bytes

    def numbers(self) -> npt.NDArray[np.generic]:
        """The elements of a numeric array."""
        return np.frombuffer(self.data, dtype=np.dtype(SCALARS[self.kind]).newbyteorder("<"))


Value = bool | int | float | str | Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `shape` in ggml's order (rows are contiguous), `offset` into the data section and `size` in bytes.

    `type` is the name that GGML gives it, as Q4_K.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def layer(self) -> int | None:
        """Index of its block, None outside of blocks."""
        found = re.match(r"blk\.(\d+)\.", self.name)
        return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a GGUF file. `size` is the header's length, `file_size` the file's, in bytes."""

    path: Path
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    alignment: int
    size: int
    file_size: int
    sha256: str
    kinds: Mapping[str, GGUFValueType]
    """The type of each metadata value, as stored."""

    def text(self, key: str) -> str | None:
        """A string value, None if it is not there."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """An integer value, None if it is not there."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def architecture(self) -> str:
        """`general.architecture`."""
        return self.text("general.architecture") or "unknown"


@cache
def types() -> Mapping[int, tuple[str, int, int]]:
    """Tensor types by their number in a file: name, numbers per block, bytes of a block."""
    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()} | _NEWER_TYPES


def look_at(path: Path) -> None:
    """Raise `ModelError` unless `path` is a readable file that begins like GGUF."""
    if not path.exists():
        raise ModelError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise ModelError(f"{path}: is not a file; name a .gguf file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {reason(error)}") from error
    if not magic:
        raise ModelError(f"{path}: is empty; fetch or copy it again")
    if magic != b"GGUF":
        raise ModelError(f"{path}: is not a GGUF file (it begins with {magic!r}); convert the model to GGUF first")


def read_header(path: Path, room: int = LARGEST_HEADER) -> Header:
    """Read and check the header of one file, which may be `room` bytes long.

    Raises:
        ModelError: the file cannot be read, is no GGUF file, or its header cannot be true.
    """
    look_at(path)
    try:
        with path.open("rb") as file:
            return _Parser(path, file, room).header()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {reason(error)}") from error


def read_model(path: Path) -> tuple[Header, ...]:
    """Headers of all parts of a model: of the one file, or of each `NAME-0000i-of-0000n.gguf`.

    Raises:
        ModelError: like `read_header`; also if a part is missing, or the file is not the first part.
    """
    first = read_header(path)
    for key in ("split.count", "split.no", "split.tensors.count"):
        if key in first.metadata and first.integer(key) is None:
            raise damage(path, f"{key} is {first.metadata[key]!r} and must be a whole number")
    count = first.integer("split.count") or 1
    if count <= 1:
        return (first,)
    if count > _MOST_PARTS:
        raise damage(path, f"it says that it has {count} parts")
    number = (first.integer("split.no") or 0) + 1
    named = _SPLIT.fullmatch(path.name)
    if named is None or int(named["number"]) != number or int(named["count"]) != count:
        wanted = f"NAME-{number:05}-of-{count:05}.gguf"
        raise ModelError(f"{path}: is part {number} of {count}; give the parts their names back ({wanted})")
    paths = [path.with_name(f"{named['stem']}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1)]
    if number != 1:
        raise ModelError(f"{path}: is part {number} of {count}; name the first part, {paths[0].name}")
    missing = [part.name for part in paths if not part.exists()]
    if missing:
        raise ModelError(f"{path}: {len(missing)} of {count} parts are missing beside it: {', '.join(missing[:3])}")
    headers, room = [first], LARGEST_HEADER - first.size
    for part in paths[1:]:
        headers.append(read_header(part, room))
        room -= headers[-1].size
    return tuple(headers)


def is_mappable(path: Path) -> bool:
    """Whether llama.cpp can use the mapped file."""
    return all(header.alignment % MAPPABLE == 0 for header in read_model(path))


def damage(path: Path, what: str) -> ModelError:
    """The error for a file whose contents cannot be true; names out of the file may be anything."""
    readable = printable(what)
    short = readable if len(readable) <= _LONGEST_REASON else f"{readable[: _LONGEST_REASON // 2]} … {readable[-60:]}"
    return ModelError(f"{path}: is damaged: {short}; fetch or copy it again")


class _Parser:
    """Reads forward through a header; every amount is checked against what the file can hold."""

    def __init__(self, path: Path, file: BinaryIO, room: int) -> None:
        self._path = path
        self._file = file
        self._room = room
        self._strings = _MOST_STRINGS
        self._kinds: dict[str, GGUFValueType] = {}
        self._size = path.stat().st_size
        self._read = bytearray()
        self._at = 0

    def header(self) -> Header:
        self._take(4)
        version = self._number("I")
        if version & 0xFFFF == 0:
            raise ModelError(f"{self._path}: is for big-endian machines; fetch the little-endian file")
        if version not in (2, 3):
            raise ModelError(f"{self._path}: is GGUF version {version}, and 2 and 3 are known; convert the model again")
        tensors, keys = self._number("Q"), self._number("Q")
        if tensors > _MOST_TENSORS:
            raise self._damage(f"it says that it holds {tensors} tensors")
        if keys > _MOST_KEYS:
            raise self._damage(f"it says that its header has {keys} entries")
        metadata: dict[str, Value] = {}
        for index in range(keys):
            key = self._string(_LONGEST_KEY, f"the name of header entry {index}")
            if not key or key in metadata:
                raise self._damage(f"header entry {index} has {'no name' if not key else f'the name {key!r} again'}")
            metadata[key] = self._value(key)
        alignment = self._alignment(metadata)
        found = self._tensors(tensors, alignment)
        size = self._at
        self._check_data(found, -(-size // alignment) * alignment)
        sha256 = self._sha256()
        return Header(self._path, version, metadata, tuple(found), alignment, size, self._size, sha256, self._kinds)

    # -- primitives ------------------------------------------------------------------------------------------

    def _damage(self, what: str) -> ModelError:
        return damage(self._path, what)

    def _sha256(self) -> str:
        return hashlib.sha256(memoryview(self._read)[: self._at]).hexdigest()

    def _fill(self, end: int) -> None:
        """Read on until byte `end` of the file is there."""
        if end > self._size:
            raise self._damage(f"it ends inside its header, at byte {self._size}")
        if end > self._room:
            raise self._damage(f"its header is longer than {LARGEST_HEADER >> 20} MiB")
        while len(self._read) < end:
            block = self._file.read(max(_BLOCK, end - len(self._read)))
            if not block:
                raise self._damage(f"it ends inside its header, at byte {len(self._read)}")
            self._read += block

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._read):
            self._fill(end)
        data = bytes(self._read[self._at : end])
        self._at = end
        return data

    def _number(self, code: str) -> int:
        (value,) = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))
        return int(value)

    def _string(self, longest: int, what: str) -> str:
        size = self._number("Q")
        if size > longest:
            raise self._damage(f"{what} is {size} bytes long")
        return self._take(size).decode(errors="replace")

    def _kind(self, key: str) -> GGUFValueType:
        kind = self._number("I")
        if kind not in GGUFValueType.__members__.values():
            raise self._damage(f"{key} has the unknown type {kind}")
        return GGUFValueType(kind)

    def _value(self, key: str) -> Value:
        self._kinds[key] = kind = self._kind(key)
        if kind is GGUFValueType.STRING:
            return self._string(_LONGEST_STRING, key)
        if kind is GGUFValueType.ARRAY:
            return self._array(key)
        code = f"<{SCALARS[kind]}"
        value: bool | int | float = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return value

    def _array(self, key: str) -> Array:
        kind = self._kind(key)
        count = self._number("Q")
        if kind is GGUFValueType.ARRAY:
            raise self._damage(f"{key} is an array of arrays")
        if count > _MOST_ELEMENTS:
            raise self._damage(f"{key} has {count} elements")
        if kind in SCALARS:
            return Array(kind, count, self._take(count * struct.calcsize(f"<{SCALARS[kind]}")))
        if count * 8 > self._size - self._at:
            raise self._damage(f"{key} has {count} strings, more than the file can hold")
        self._strings -= count
        if self._strings < 0:
            raise self._damage(f"{key} has {count} strings, and all arrays can have {_MOST_STRINGS}")
        start = end = self._at
        for _ in range(count):
            if end + 8 > len(self._read):
                self._fill(end + 8)
            end += 8 + _LENGTH.unpack_from(self._read, end)[0]
            if end > len(self._read):
                self._fill(end)
        self._at = end
        return Array(kind, count, bytes(self._read[start:end]))

    # -- tensors ---------------------------------------------------------------------------------------------

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if isinstance(alignment, bool) or not isinstance(alignment, int) or alignment < 1 or alignment & alignment - 1:
            raise self._damage(f"general.alignment is {alignment!r} and must be a power of two")
        return alignment

    def _tensors(self, count: int, alignment: int) -> list[Tensor]:
        found: list[Tensor] = []
        names: set[str] = set()
        expected = 0
        for index in range(count):
            name = self._string(_LONGEST_TENSOR_NAME, f"the name of tensor {index}")
            if name in names:
                raise self._damage(f"it holds the tensor {name!r} twice")
            names.add(name)
            tensor = self._tensor(name)
            if tensor.offset != expected:
                raise self._damage(f"tensor {name!r} should begin at byte {expected} of the data, not {tensor.offset}")
            expected += -(-tensor.size // alignment) * alignment
            found.append(tensor)
        return found

    def _tensor(self, name: str) -> Tensor:
        dimensions = self._number("I")
        if dimensions > 4:
            raise self._damage(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._number("q") for _ in range(dimensions))
        if any(length < 1 for length in shape):
            raise self._damage(f"tensor {name!r} has the shape {shape}")
        kind = self._number("I")
        if kind not in types():
            raise ModelError(
                f"{self._path}: tensor {name!r} has the unknown type {kind}: the file is damaged, or newer than this "
                "program; fetch it again, or another quantisation"
            )
        quantization, block, block_size = types()[kind]
        row = shape[0] if shape else 1
        if row % block:
            raise self._damage(f"tensor {name!r} has rows of {row} numbers, no multiple of {block} ({quantization})")
        offset = self._number("Q")
        return Tensor(name, shape, quantization, offset, math.prod(shape) // block * block_size)

    def _check_data(self, tensors: list[Tensor], start: int) -> None:
        for tensor in tensors:
            end = start + tensor.offset + tensor.size
            if end > self._size:
                raise self._damage(
                    f"it is {self._size} bytes long, and tensor {tensor.name!r} ends at byte {end}; the end is missing"
                )
