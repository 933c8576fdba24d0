"""Write complete files only, under names that every file system accepts."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from errno import EEXIST, EROFS
from pathlib import Path

from camcli.core.errors import FULL_ERRNOS, OutputError, StorageError
from camcli.core.types import ClassExplanation
from camcli.io.labels import Labels

DISK_ERRNOS = (*FULL_ERRNOS, EROFS)  # errors of the disk, not of one file


def write_file(path: Path, content: bytes) -> None:
    """Write a complete file or none: camcli writes to a temporary name, then renames it.

    Raises OutputError, or StorageError if the disk accepts no files any more.
    """
    # Always the same temporary name: the next run replaces what a killed run left behind.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _write_new_file(temporary, content)
        temporary.replace(path)
    except RecursionError:
        raise OutputError(f"cannot write {path}: too many folders deep") from None
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        kind = StorageError if error.errno in DISK_ERRNOS else OutputError
        raise kind(f"cannot write {path}: {error.strerror}") from None


def _write_new_file(path: Path, content: bytes) -> None:
    """Write into a new file, so that nothing is written through a link."""
    for _ in range(2):
        try:
            with path.open("xb") as file:
                file.write(content)
            return
        except FileExistsError:
            path.unlink()
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
    raise OSError(EEXIST, os.strerror(EEXIST))


def is_below_folder(path: str | Path, folder: str | Path) -> bool:
    """Whether a path lies in a folder, or is the folder, after all links in both."""
    try:
        root = os.path.realpath(folder)
        return os.path.commonpath([root, os.path.realpath(path)]) == root
    except (OSError, ValueError):  # a name that no file can have, or another drive
        return False


def shorten_stem(stem: str) -> str:
    """A stem that fits any file system, even with the class and the kind appended."""
    folder, _, name = stem.rpartition("/")
    raw = name.encode(errors="surrogateescape")
    if len(raw) > 100:
        name = f"{raw[:60].decode(errors='ignore')}-{hashlib.sha256(raw).hexdigest()[:8]}"
    return f"{folder}/{name}" if folder else name


def create_class_slugs(labels: Labels) -> list[str]:
    """A distinct part of a file name for each class: `egyptian-cat`; `crane-134` if two agree."""
    plain = ["-".join(re.findall(r"\w+", name)).casefold() for name in labels.names]
    slugs = [slug.encode()[:40].decode(errors="ignore") for slug in plain]
    count = Counter(slugs)
    taken = {slug for slug in slugs if slug and count[slug] == 1}
    return [slug if slug in taken else _number_slug(slug, i, taken) for i, slug in enumerate(slugs)]


def format_explanation_slug(explanation: ClassExplanation, slugs: Sequence[str]) -> str:
    """The slug of a class and its rivals: `tabby`, `tabby-vs-lynx`, `tabby-vs-3-nearest`, `low-y`.

    Empty for a network without classes.
    """
    if explanation.class_index is None:
        return ""
    own = f"{'low-' if explanation.is_low else ''}{slugs[explanation.class_index]}"
    if not explanation.rival_classes:
        return own
    others = [slugs[index] for index, _ in explanation.rival_classes]
    return f"{own}-vs-{others[0] if len(others) == 1 else f'{len(others)}-nearest'}"


def format_method_slug(name: str) -> str:
    """The part of a file name for a method: `gradcam`, `tscam-part-attention`."""
    return re.sub(r"[^\w.+]+", "-", name)


def list_distinct_names(names: Sequence[str]) -> list[str]:
    """The names, with a number from 2 at those that came before: a, b, a -> a, b, a-2."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return distinct


def _number_slug(slug: str, index: int, taken: set[str]) -> str:
    candidate = f"{slug or 'class'}-{index}"
    while candidate in taken:
        candidate = f"{candidate}-{index}"
    return candidate


def format_page_path(output: Path, number: int) -> Path:
    """The file of a page, where pages are files of their own: `a.png`, then `a-page2.png`."""
    return output.with_stem(f"{output.stem}-page{number}") if number > 1 else output
