"""The model libraries. To add one, add a file here that ends with `LIBRARY = MyLibrary()`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from camcli.core.errors import ModelError
from camcli.models.zoo.library import Library

# In the order in which `camcli models` prints them. The first library that owns a name loads it.
LIBRARIES: list[Library] = [
    import_module(f"{__name__}.{module.name}").LIBRARY for module in iter_modules(__path__)
]


def register_library(library: Library) -> None:
    """Add a library that is defined elsewhere. Raises ValueError for a prefix that is taken."""
    taken = {prefix for known in LIBRARIES for prefix in known.prefixes}
    if not library.prefixes or taken & {*library.prefixes}:
        raise ValueError(f"a library needs prefixes of its own, not {library.prefixes}")
    LIBRARIES.append(library)


def unregister_library(library: Library) -> None:
    """Remove a library that `register_library` added."""
    LIBRARIES.remove(library)


def is_owned_name(name: str) -> bool:
    """Whether a name belongs to a library, even if no such network exists."""
    return any(library.owns(name) for library in LIBRARIES)


def find_library(name: str) -> Library:
    """The library that a name belongs to. Raises ModelError for an unknown prefix."""
    for library in LIBRARIES:
        if library.owns(name):
            return library
    raise ModelError(f"no model library has the name {name!r} (`camcli models` lists the names)")


def list_model_names() -> list[str]:
    """The names of all libraries, each once."""
    return list(dict.fromkeys(name for library in LIBRARIES for name in library.list_names()))
