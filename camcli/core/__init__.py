"""Types, errors, arithmetic of maps and boxes. Imports nothing else of camcli."""
