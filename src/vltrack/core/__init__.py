"""Types, errors, files, JSON and pickles that every other package uses. Never imports torch."""
