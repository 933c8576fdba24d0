"""Hand the boxes of a run on to other tools: one file of this folder for each format."""
