"""Small pictures inside a page, for `--embed` and for files that no browser draws."""

from __future__ import annotations

import io
import os
from base64 import b64encode
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from camcli.core.concurrency import prefetch_map
from camcli.core.errors import ImageError

THUMBNAIL_SIDE = 256
WEBP_QUALITY = 72


def create_thumbnails(
    paths: Iterable[str], advance: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """A WebP in base64 for each image that can be read, by its path."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = {}
        for path, thumbnail in prefetch_map(pool, _create_thumbnail, paths, 16):
            found[path] = thumbnail
            advance()
    return {path: thumbnail for path, thumbnail in found.items() if thumbnail}


def _create_thumbnail(path: str) -> tuple[str, str]:
    from camcli.io.images import ODD_IMAGE_ERRORS, load_image

    try:
        image = load_image(Path(path))
    except (ImageError, *ODD_IMAGE_ERRORS):
        return path, ""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=WEBP_QUALITY)
    return path, b64encode(buffer.getvalue()).decode()
