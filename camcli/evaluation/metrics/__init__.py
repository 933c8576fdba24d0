"""Localization metrics of one map, and their aggregation over a data set."""
