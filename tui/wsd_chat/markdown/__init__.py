"""Replies as Markdown with a mark at the switch; no Textual."""
