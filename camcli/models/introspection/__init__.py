"""What can be read of a network: layers, stages, blocks, heads, attention, logits."""
