"""The chat store: all chats, in one SQLite file.

Contract: see `Store`; `file` states what survives a crash, `schema` defines the tables, `finding` defines how search
reads a query.
"""

from __future__ import annotations

from wsd_local.prompts.messages import Role
from wsd_local.store.file import GoneError, StoreError, default_path
from wsd_local.store.rows import ChatRow, Hit, MessageRow, Preset, ReplyRow, Span, State
from wsd_local.store.store import Store
from wsd_local.store.writer import FLUSH_S, ReplyWriter

__all__ = [
    "FLUSH_S",
    "ChatRow",
    "GoneError",
    "Hit",
    "MessageRow",
    "Preset",
    "ReplyRow",
    "ReplyWriter",
    "Role",
    "Span",
    "State",
    "Store",
    "StoreError",
    "default_path",
]
