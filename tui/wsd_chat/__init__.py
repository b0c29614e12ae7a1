"""The terminal chat of wsd-local."""
