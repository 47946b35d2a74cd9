"""Overlap, curves and scores of boxes against annotations. Knows arrays only; never loads torch."""
