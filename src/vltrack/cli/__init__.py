"""The command ``vltrack``: flags, exit codes and what goes to which stream; ``vltrack.api`` does the work."""
