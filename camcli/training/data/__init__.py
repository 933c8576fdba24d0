"""Training images: reading, splitting, loading in batches."""
