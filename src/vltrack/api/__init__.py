"""One typed function per verb, for the command and for notebooks; ``vltrack`` exports the public ones."""
