"""Conversion of frames, texts and boxes to the inputs of a network, and of its boxes back to the frame."""
