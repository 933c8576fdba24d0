"""The explanation methods: pure functions from recorded tensors to maps."""

from camcli.methods.registry import method

__all__ = ["method"]
