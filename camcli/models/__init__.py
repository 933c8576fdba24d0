"""Load a network, and find out what can be read of it."""
