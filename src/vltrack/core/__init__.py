"""The ground floor: boxes, targets, frames, steps, errors and safe files. Knows numpy and the standard
library only.
"""
