"""The explanation methods: pure functions from recorded tensors to maps."""
