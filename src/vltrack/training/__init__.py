"""Training of trackers: rendered pairs and clips, losses, the loop, recipes and published weights."""
