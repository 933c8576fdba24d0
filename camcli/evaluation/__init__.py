"""Maps and boxes against ground truth: data sets, metrics, baselines, report and pictures."""
