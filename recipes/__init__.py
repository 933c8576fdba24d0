"""How files that ship with camcli were made. The recipes are not installed with it."""
