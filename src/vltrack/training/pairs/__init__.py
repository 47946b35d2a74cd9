"""Training pairs rendered from still images."""
