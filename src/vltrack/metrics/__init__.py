"""Scores of boxes against annotations, on arrays; without torch."""
