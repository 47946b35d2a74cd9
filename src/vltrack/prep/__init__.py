"""From frames, sentences and boxes to what a network reads, and back. Knows no video file and no model."""
