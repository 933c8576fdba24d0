"""Many images: pipeline, memory, resume, run.json, comparison."""
