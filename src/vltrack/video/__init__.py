"""Frames in and videos out: sources of frames, decoded in a process of their own, and the video writer."""
