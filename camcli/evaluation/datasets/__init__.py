"""Data sets as they are distributed, each read by one function into Truths and Problems."""
