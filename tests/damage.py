"""Variants of a GGUF file: damaged in many seeded ways, or unusual and still valid."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from makers import raw_entries

from wsd_local.library.gguf import read_header

_LIES = (0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def truncated(data: bytes, header: int, count: int, random: np.random.Generator) -> Iterator[bytes]:
    """The beginning of a file, cut in its header, just after it, and in its weights."""
    for length in {0, 1, 3, 4, 7, 8, 15, 16, 23, 24, header - 1, header, header + 1, len(data) - 1}:
        yield data[:length]
    for length in random.integers(24, header, count // 2):
        yield data[:length]
    for length in random.integers(header, len(data) - 64, count // 2):
        yield data[:length]


def flipped(data: bytes, header: int, count: int, random: np.random.Generator) -> Iterator[bytes]:
    """One to eight bytes of the header changed."""
    for _ in range(count):
        changed = bytearray(data)
        for at in random.integers(4, header, int(random.integers(1, 9))):
            changed[at] ^= int(random.integers(1, 256))
        yield bytes(changed)


def spliced(data: bytes, header: int, count: int, random: np.random.Generator) -> Iterator[bytes]:
    """A piece of the header removed, doubled, zeroed, or replaced by a piece from elsewhere."""
    for index in range(count):
        at, length = int(random.integers(8, header)), int(random.integers(1, 4096))
        source = int(random.integers(0, len(data) - length))
        piece = (b"", data[at : at + length] * 2, bytes(length), data[source : source + length])[index % 4]
        yield data[:at] + piece + data[at + length :]


def lying(path: Path, count: int, random: np.random.Generator) -> Iterator[bytes]:
    """Lengths, counts, types and numbers replaced by absurd ones, at every place where the format has one."""
    data = path.read_bytes()
    places = [(8, "Q"), (16, "Q"), (4, "I")]
    for key, entry in raw_entries(path).items():
        start = data.index(entry)
        value = start + 8 + len(key.encode())
        kind = struct.unpack_from("<I", data, value)[0]
        places += [(start, "Q"), (value, "I"), (value + 4, "I" if kind in (4, 5, 9) else "Q")]
        if kind == 9:
            places += [(value + 8, "Q"), (value + 16, "Q")]
    for tensor in read_header(path).tensors:
        start = data.index(struct.pack("<Q", len(tensor.name)) + tensor.name.encode())
        shape = start + 8 + len(tensor.name)
        places += [(start, "Q"), (shape, "I"), (shape + 4, "Q")]
        end = shape + 4 + 8 * len(tensor.shape)
        places += [(end, "I"), (end + 4, "Q")]
    for index in random.integers(0, len(places), count):
        at, code = places[index]
        lie = int(random.choice(np.array(_LIES, dtype=np.uint64))) % 2 ** (8 * struct.calcsize(code))
        changed = bytearray(data)
        struct.pack_into(f"<{code}", changed, at, lie)
        yield bytes(changed)


def misnumbered(path: Path, count: int, random: np.random.Generator) -> Iterator[bytes]:
    """A scalar of the metadata, an element of an array, or a tensor's shape replaced; the format itself stays right."""
    data = path.read_bytes()
    places: list[tuple[int, str]] = []
    for key, entry in raw_entries(path).items():
        value = data.index(entry) + 8 + len(key.encode())
        kind = struct.unpack_from("<I", data, value)[0]
        if kind in (4, 5, 6):
            places += [(value + 4, "I")] * 4
        elif kind == 9 and struct.unpack_from("<I", data, value + 4)[0] in (4, 5, 6):
            elements = struct.unpack_from("<Q", data, value + 8)[0]
            places += [(value + 16 + 4 * int(index), "I") for index in random.integers(0, elements, 4)]
    for index in random.integers(0, len(places), count):
        at, code = places[index]
        (old,) = struct.unpack_from("<I", data, at)
        number = int(random.choice(np.array([0, 1, old + 1, old // 2, old * 2, *_LIES], dtype=np.uint64))) % 2**32
        changed = bytearray(data)
        struct.pack_into(f"<{code}", changed, at, number)
        yield bytes(changed)


def variants(path: Path, each: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """About six times `each` damaged variants of a file, by kind."""
    data, header = path.read_bytes(), read_header(path).size
    random = np.random.default_rng(seed)
    makers = {
        "truncated": truncated(data, header, each, random),
        "flipped": flipped(data, header, 2 * each, random),
        "spliced": spliced(data, header, each, random),
        "lying": lying(path, each, random),
        "misnumbered": misnumbered(path, each, random),
    }
    for kind, made in makers.items():
        for content in made:
            if content != data:
                yield kind, content
