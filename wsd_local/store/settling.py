"""Replies whose program is gone.

Contract: such a reply counts as cancelled, and search finds it; one that a living program writes is left alone.
"""

from __future__ import annotations

from wsd_local.store import finding, queries
from wsd_local.store.file import ChatFile
from wsd_local.store.writer import is_alive


def settle(file: ChatFile) -> None:
    """Record that replies whose program is gone were cancelled."""
    unsettled = f"{queries.MESSAGE} WHERE state = 'writing'"
    with file.reading() as db:
        if all(is_alive(row["writer_pid"], row["writer_started"]) for row in db.execute(unsettled)):
            return
    with file.changing() as db:
        for row in db.execute(unsettled).fetchall():
            if not is_alive(row["writer_pid"], row["writer_started"]):
                values = (finding.words(row["text"]), row["id"])
                db.execute("UPDATE messages SET state = 'cancelled', words = ? WHERE id = ?", values)
                db.execute("UPDATE replies SET finish_reason = 'cancelled' WHERE message = ?", (row["id"],))
