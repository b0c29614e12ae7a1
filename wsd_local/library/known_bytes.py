"""Whether the bytes of a model file are those that the catalog knows.

Contract: a file whose SHA-256 is the catalog's is known, whatever it is called. One that has the size of a model of the
catalog and other bytes is altered: damaged, or joined from its parts in a wrong order, which llama.cpp loads and then
writes gibberish with. Of every other file nothing can be said. Only a file of such a size is hashed for this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsd_local.files import HashProgress, file_sha256, known_sha256
from wsd_local.library.catalog import ModelEntry, catalog_models


@dataclass(frozen=True, slots=True)
class Recognised:
    """The catalog's model that a file is, or should be; `same` says whether the bytes are the known ones."""

    name: str
    same: bool

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"model": self.name, "same": self.same}

    def __str__(self) -> str:
        if self.same:
            return f"known: the bytes are those of {self.name}"
        return (
            f"NOT the known bytes: the file has the size of {self.name} and another SHA-256; it is damaged, or was "
            "joined from its parts in a wrong order: it may write gibberish"
        )


def recognised(
    paths: Sequence[Path], entry: ModelEntry | None = None, progress: HashProgress | None = None
) -> Recognised | None:
    """What a model's files are by their bytes; None where the catalog cannot tell.

    `entry` is what the catalog has under the name by which the model was asked for.
    """
    if len(paths) != 1:
        return None
    path, pinned = paths[0], [one for one in catalog_models().values() if one.sha256 is not None]
    alike = next((one for one in pinned if one.size == path.stat().st_size), None)
    sha256 = file_sha256(path, progress=progress) if alike is not None else known_sha256(path)
    if sha256 is None:
        return None
    known = next((one for one in pinned if one.sha256 == sha256), None)
    if known is not None:
        return Recognised(known.name, same=True)
    expected = alike or (entry if entry is not None and entry.sha256 is not None else None)
    return None if expected is None else Recognised(expected.name, same=False)
