"""Load networks: by name, from a checkpoint, from user code or from an exported program."""
