"""Annotated video data sets, referring expressions, training images and synthetic clips, without torch."""
