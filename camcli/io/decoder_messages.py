"""Catch what decoders say: libtiff writes to standard error from C, and Pillow warns from threads.

Neither names the file. camcli silences both, and gives libtiff's words with the image that fails.
"""

from __future__ import annotations

import ctypes
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from PIL import _imaging

MAX_MESSAGE_BYTES = 500
_TiffHandler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_listening = threading.local()


@contextmanager
def collect_decoder_messages() -> Iterator[list[str]]:
    """Silence decoders in this thread, and yield the list to which libtiff's messages go.

    `warnings.catch_warnings` is for one thread only: two threads that leave it in another order
    than they entered it would change the filters for ever. So each adds and removes one entry.
    """
    _install_tiff_handlers()
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters.insert(0, _PILLOW_FILTER)
    before = getattr(_listening, "messages", None)
    messages: list[str] = []
    _listening.messages = messages
    try:
        yield messages
    finally:
        _listening.messages = before
        with suppress(ValueError):  # the caller has reset all filters meanwhile
            filters.remove(_PILLOW_FILTER)


@cache
def _install_tiff_handlers() -> tuple[object, ...]:
    """Replace libtiff's two handlers, once per process; return them, so that they stay alive.

    A Pillow whose libtiff cannot be reached, as on Windows, keeps its own.
    """
    with suppress(OSError, AttributeError):
        pillow, libc = ctypes.CDLL(_imaging.__file__), ctypes.CDLL(None)
        setters = (pillow.TIFFSetErrorHandler, pillow.TIFFSetWarningHandler)
        return tuple(_replace_handler(setter, libc.vsnprintf) for setter in setters)
    return ()


def _replace_handler(setter: Any, format_arguments: Any) -> object:
    """Give libtiff a handler that keeps messages of threads that listen, and passes on others."""
    format_arguments.argtypes = (
        *(ctypes.c_char_p, ctypes.c_size_t),
        *(ctypes.c_char_p, ctypes.c_void_p),
    )
    setter.argtypes, setter.restype = (ctypes.c_void_p,), ctypes.c_void_p
    earlier: list[Callable[..., None]] = []

    def handle(module: bytes, pattern: bytes, arguments: int) -> None:
        messages = getattr(_listening, "messages", None)
        if messages is not None:
            buffer = ctypes.create_string_buffer(MAX_MESSAGE_BYTES)
            format_arguments(buffer, MAX_MESSAGE_BYTES, pattern, arguments)
            messages.append(buffer.value.decode(errors="replace"))
        elif earlier:  # Pillow decodes for somebody else
            earlier[0](module, pattern, arguments)

    handler = _TiffHandler(handle)
    address = setter(ctypes.cast(handler, ctypes.c_void_p))
    if address:
        earlier.append(_TiffHandler(address))
    return handler
