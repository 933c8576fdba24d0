"""Faster forward passes: lower precision, compilation, folded batch norms."""
