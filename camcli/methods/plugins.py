"""Methods outside camcli: functions in a user's own file, and methods of installed packages.

camcli imports a user's module only when the user names it as `package.module:function`. An
installed package offers its methods as entry points of the group `camcli.methods`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from camcli.core.errors import CamcliError, UsageError, format_suggestion
from camcli.methods.registry import METHODS, Method, normalize_method_name

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from types import ModuleType

ENTRY_POINT_GROUP = "camcli.methods"

Loaded = TypeVar("Loaded")


def load_user_method(spec: str) -> Method:
    """The method `package.module:function`, from the current folder or any importable module.

    Raises UsageError if the module or the function is missing, fails, or is not decorated.
    """
    module_name, _, function_name = spec.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UsageError(f"method {spec}: write package.module:function")
    with _current_folder_on_path():
        module = _run_import(f"method {spec}", lambda: _import_user_module(spec, module_name))
    if not hasattr(module, function_name):
        near = format_suggestion(function_name, (n for n in vars(module) if not n.startswith("_")))
        raise UsageError(f"method {spec}: no function {function_name!r} in {module_name}{near}")
    return _find_registered(f"method {spec}", getattr(module, function_name))


def _import_user_module(spec: str, module_name: str) -> ModuleType:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, but imports one that does not
        near = format_suggestion(module_name, (file.stem for file in Path().glob("*.py")))
        where = "in this folder or among installed packages"
        raise UsageError(f"method {spec}: no module {error.name!r} {where}{near}") from None


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    """Inside the context, search the current folder first, as `python -m` does; later, last.

    The method can still import from the folder later, but no file in the folder hides a module of
    camcli's own dependencies.
    """
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        sys.path.append(here)


def list_installed_methods() -> list[EntryPoint]:
    """The methods that installed packages offer, sorted by name; this imports none of them."""
    from importlib.metadata import entry_points  # only here: it reads every installed package

    return sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda found: found.name)


def find_installed_method(name: str) -> Method | None:
    """The method that an installed package offers under this name, if there is one.

    Letter case and hyphens do not matter. Raises UsageError if it cannot be loaded.
    """
    plain = normalize_method_name(name)
    same = (e for e in list_installed_methods() if normalize_method_name(e.name) == plain)
    entry_point = next(same, None)
    return load_installed_method(entry_point) if entry_point else None


def load_installed_method(entry_point: EntryPoint) -> Method:
    """Import an installed method; it gets the name of its entry point.

    Raises UsageError if the import fails, the function is not decorated, or camcli has a method of
    that name.
    """
    name = entry_point.name
    origin = f"installed method {name} ({entry_point.value})"
    found = _find_registered(origin, _run_import(origin, entry_point.load))
    taken = {normalize_method_name(known): m for known, m in METHODS.items()}
    other = taken.get(normalize_method_name(name))
    if other and other.function is not found.function:
        raise UsageError(f"{origin}: camcli already has a method with this name")
    return replace(found, name=name)


def _run_import(origin: str, load: Callable[[], Loaded]) -> Loaded:
    """Import foreign code; any error that it raises becomes a one-line UsageError."""
    try:
        with redirect_stdout(sys.stderr):  # standard output is for data
            return load()
    except CamcliError as error:
        text = str(error)
        raise UsageError(text if origin in text else f"{origin}: {text}") from None
    except (Exception, SystemExit, GeneratorExit) as error:
        raise UsageError(
            f"{origin} cannot be imported ({type(error).__name__}: {error})"
        ) from error


def _find_registered(origin: str, function: object) -> Method:
    for found in METHODS.values():
        if found.function is function:
            return found
    raise UsageError(
        f"{origin} is not a method: decorate the function with @method "
        f"(from camcli.methods import method)"
    )
