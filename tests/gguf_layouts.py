"""GGUF files with a given content and an unusual layout: split into parts, huge and sparse, aligned otherwise."""

from __future__ import annotations

import struct
from pathlib import Path

from gguf import GGMLQuantizationType
from makers import packed, packed_string

from wsd_local.library.gguf import read_header


def huge(path: Path) -> Path:
    """A file of forty gigabytes of which only the header takes room on the disk."""
    values: dict[str, str | int] = {"general.architecture": "llama", "llama.block_count": 1}
    tensors = [("token_embd.weight", (4096, 1000)), ("blk.0.ffn_up.weight", (4096, 2_450_000))]
    with path.open("wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values)))
        out.writelines(packed_string(key) + packed(value) for key, value in values.items())
        offset = 0
        for name, shape in tensors:
            out.write(packed_string(name) + struct.pack("<I2QIQ", 2, *shape, 0, offset))
            offset += 4 * shape[0] * shape[1]
        out.truncate(-(-out.tell() // 32) * 32 + offset)
    return path


def split_in_three(whole: Path, stem: Path) -> list[Path]:
    """The parts that llama.cpp's own splitter would make."""
    header, data = read_header(whole), whole.read_bytes()
    start = -(-header.size // 32) * 32
    entries_end = data.index(struct.pack("<Q", len(header.tensors[0].name)) + header.tensors[0].name.encode())
    parts = []
    for number in range(3):
        tensors = header.tensors[number::3]
        values: dict[str, int] = {"split.no": number, "split.tensors.count": len(header.tensors), "split.count": 3}
        entries = b"".join(
            packed_string(k) + struct.pack("<IH", 2, v) for k, v in values.items() if k != "split.tensors.count"
        )
        entries += packed_string("split.tensors.count") + struct.pack("<Ii", 5, len(header.tensors))
        own = data[24:entries_end] if number == 0 else b""
        count = 3 + (len(header.metadata) if number == 0 else 0)
        infos, blobs, offset = b"", b"", 0
        for tensor in tensors:
            infos += packed_string(tensor.name) + struct.pack(
                f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape
            )
            infos += struct.pack("<IQ", GGMLQuantizationType[tensor.type], offset)
            blob = data[start + tensor.offset : start + tensor.offset + tensor.size]
            blobs += blob + bytes(-len(blob) % 32)
            offset = len(blobs)
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), count) + own + entries + infos
        parts.append(Path(f"{stem}-{number + 1:05}-of-00003.gguf"))
        parts[-1].write_bytes(head + bytes(-len(head) % 32) + blobs)
    return parts


def with_entries(data: bytes, target: Path, blob: bytes, count: int, alignment: int) -> Path:
    """A copy with more metadata; tensors are moved to where the alignment wants them."""
    from wsd_local.library.gguf import read_header

    source = target.with_suffix(".source")
    source.write_bytes(data)
    header = read_header(source)
    start = -(-header.size // 32) * 32
    keys = int.from_bytes(data[16:24], "little") + count
    first = data.index(len(header.tensors[0].name).to_bytes(8, "little") + header.tensors[0].name.encode())
    infos, blobs = b"", b""
    for tensor in header.tensors:
        infos += packed_string(tensor.name) + len(tensor.shape).to_bytes(4, "little")
        infos += b"".join(length.to_bytes(8, "little") for length in tensor.shape)
        infos += int(GGMLQuantizationType[tensor.type]).to_bytes(4, "little") + len(blobs).to_bytes(8, "little")
        content = data[start + tensor.offset : start + tensor.offset + tensor.size]
        blobs += content + bytes(-len(content) % alignment)
    head = data[:16] + keys.to_bytes(8, "little") + data[24:first] + blob + infos
    target.write_bytes(head + bytes(-len(head) % alignment) + blobs)
    return target
