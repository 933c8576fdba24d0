"""Types, errors, and the arithmetic of maps and boxes."""
