"""One batch: plan what the methods read, one forward pass, at most one backward pass, maps."""
