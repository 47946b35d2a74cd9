"""The ground floor: boxes, targets, frames, steps, errors and safe files. Knows numpy, not torch."""
