"""Presets: named models and settings with which chats are begun."""

from __future__ import annotations

from wsd_local.errors import UsageError
from wsd_local.store.file import ChatFile
from wsd_local.store.finding import clean, one_line
from wsd_local.store.rows import Preset, as_json, preset_row


class Presets:
    """The presets of a store."""

    def __init__(self, file: ChatFile) -> None:
        self._file = file

    def all(self) -> list[Preset]:
        """All presets by name."""
        with self._file.reading() as db:
            found = db.execute("SELECT * FROM presets ORDER BY name").fetchall()
        return [preset_row(row) for row in found]

    def save(self, preset: Preset) -> None:
        """Keep a preset; one of the same name is replaced.

        Raises:
            UsageError: its name is empty.
        """
        if not (name := one_line(preset.name)):
            raise UsageError("a preset needs a name")
        system = None if preset.system is None else clean(preset.system)
        values = (name, clean(preset.pair), system, as_json(dict(preset.settings)))
        with self._file.changing() as db:
            db.execute("INSERT OR REPLACE INTO presets (name, pair, system, settings) VALUES (?, ?, ?, ?)", values)
