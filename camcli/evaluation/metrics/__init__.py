"""Localization metrics of one map, and their aggregates over a data set."""
