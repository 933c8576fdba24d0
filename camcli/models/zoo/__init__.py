"""Where networks come from: names, checkpoints, user code, exported programs."""
