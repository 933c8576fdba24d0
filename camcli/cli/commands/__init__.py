"""One file per command: it parses the options and calls a runner."""
