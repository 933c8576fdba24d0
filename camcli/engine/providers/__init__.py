"""Providers: one file for each family of tensors that a method may ask for.

Every file in this folder is imported with the package, so a new provider is one new file. The
files import torch only inside functions: the list of methods must not wait for it.
"""

from importlib import import_module
from pkgutil import iter_modules

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")
