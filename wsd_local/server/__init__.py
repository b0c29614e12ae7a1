"""Answers over HTTP: one service over loaded pairs, and the protocols in which clients speak to it.

Contract: `service` states what a protocol may ask for, in plain values; it knows no HTTP. Each protocol (OpenAI's,
Anthropic's, Ollama's, our own) translates requests into those values and events into its own answers, and knows neither
models nor threads. Imported by the command `serve` alone.
"""
