"""The explanation methods: pure functions from recorded tensors to maps.

`camcli.methods()` lists them by name: the package can be called, because a function of this name
would be hidden by the package as soon as one of its modules is imported.
"""

import sys
from collections.abc import Mapping
from types import ModuleType

from camcli.methods.registry import METHODS, Method, method

__all__ = ["method"]


class _CallablePackage(ModuleType):
    def __call__(self) -> Mapping[str, Method]:
        """Every registered method by its name, in the order of `camcli methods`."""
        return dict(METHODS)


sys.modules[__name__].__class__ = _CallablePackage
