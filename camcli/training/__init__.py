"""Fit a head, TS-CAM's or CAM's, to a network: data, logistic regression, epochs, checkpoints."""
