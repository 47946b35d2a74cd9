"""Weights on disk: our format (safetensors, a JSON card and sha256) and key maps for published weights."""
