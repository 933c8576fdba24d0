"""Report pages: HTML of a run, a comparison, an evaluation, or a difference of two runs."""
