"""Fitting a head, TS-CAM's or CAM's, on photographs. Knows nothing of the command line."""
