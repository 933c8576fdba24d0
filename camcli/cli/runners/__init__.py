"""One runner per command: do the work, show the progress, print the result."""
