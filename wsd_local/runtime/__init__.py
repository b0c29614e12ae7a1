"""Loaded models and replies over them."""
