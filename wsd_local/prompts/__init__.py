"""What the two models read."""
