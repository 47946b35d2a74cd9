"""Static graphs of the networks for other runtimes."""
