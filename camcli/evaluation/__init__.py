"""How well maps fit the truth: data sets with boxes, localisation metrics, their pictures.

Knows nothing of the command line.
"""
