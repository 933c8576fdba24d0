"""Find parts of a network: layers, stages, blocks, heads, attention, logits."""
