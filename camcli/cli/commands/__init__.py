"""One file per command: options in, a runner called."""
