"""Faster forward passes: lower precision, compilation and folded batch norms."""
