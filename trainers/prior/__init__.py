"""Guesses by prior scores, without training."""
