"""Load a network, and find the parts that methods can read."""
