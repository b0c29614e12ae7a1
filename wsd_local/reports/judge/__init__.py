"""Judges: models that compare or grade replies, by the probabilities of their answers."""
