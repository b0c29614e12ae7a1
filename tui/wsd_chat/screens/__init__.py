"""Screens that lie over the chat: help, settings, models, comparisons, logs."""
