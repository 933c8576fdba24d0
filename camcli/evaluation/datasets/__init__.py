"""Data sets: one file per format; each registers a reader for `evaluate` and `train`."""
