"""Training photographs: readers, splits, batches."""
