"""Find the image files that the user's inputs name, without opening them."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath

from camcli.core.errors import UsageError, to_one_line
from camcli.core.types import Failure, ImageSource
from camcli.io.run_folders import is_run_folder_name

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff"),
        *("ppm", "pgm", "pnm", "avif", "jp2"),
    )
)
ARRAY_SUFFIX = ".npy"
# Pictures in formats that camcli does not read; it tells how many it leaves out.
OTHER_PICTURE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("heic", "heif", "jxl", "dcm", "dicom", "nii", "svg", "psd", "eps", "tga", "ico", "exr"),
        *("hdr", "dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "j2k", "jp2k", "jpx"),
    )
)
SourceOrFailure = ImageSource | Failure


def find_image_sources(
    inputs: Sequence[str],
    stdin_names: Iterable[str],
    skip_folder: Path | None,
    count_unread: Callable[[Mapping[str, int]], None] = lambda _counts: None,
) -> list[SourceOrFailure]:
    """Every image that the inputs name, once, in their order; a missing one is a Failure.

    An input is a file, a folder (searched recursively, without hidden entries), a glob, or `-` for
    a list of inputs on stdin. Of a folder or a glob, `.npy` files are images only if it finds no
    picture. `skip_folder` holds the results and is left out, and so are folders below an input
    that have the name of a run's folder, such as `camcli-out-2`.
    For each folder, `count_unread` gets the number of pictures of other formats by suffix.
    Raises UsageError if there is no image at all.
    """
    listed = (item for given in inputs for item in (stdin_names if given == "-" else (given,)))
    # Path.resolve raises on circular links
    skip_folder = Path(os.path.realpath(skip_folder or os.devnull))
    found = list(
        _iter_unique_sources(
            item for given in listed for item in _expand_input(given, skip_folder, count_unread)
        )
    )
    stem = iter(create_output_stems([item.name for item in found if isinstance(item, ImageSource)]))
    found = [replace(i, output_stem=next(stem)) if isinstance(i, ImageSource) else i for i in found]
    if not any(isinstance(item, ImageSource) for item in found):
        reasons = [f"{to_one_line(f.path)}: {f.reason}" for f in found if isinstance(f, Failure)]
        empty = "the list on standard input is empty" if "-" in inputs else "no input"
        raise UsageError("; ".join(reasons[:3]) or f"{empty}: name an image, a folder or a glob")
    return found


def format_unread_notice(counts: Mapping[str, int]) -> str:
    """What camcli leaves out and what to do, as one sentence; "" if there is nothing."""
    found = format_suffix_counts(counts)
    return f"left out {found}: camcli does not read these; convert them to .png" if found else ""


def format_suffix_counts(counts: Mapping[str, int]) -> str:
    """Counts of files by suffix, the most frequent first: "12 .heic, 3 .dcm"."""
    return ", ".join(f"{count} {suffix}" for suffix, count in Counter(counts).most_common())


def parse_path_list(text: str) -> list[str]:
    r"""The paths in a list: one per line, or separated by NUL as `find -print0` writes them."""
    if "\0" in text:
        return [name for name in text.split("\0") if name.strip()]
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def _expand_input(
    input_text: str, skip_folder: Path, count_unread: Callable[[Mapping[str, int]], None]
) -> Iterator[SourceOrFailure]:
    path = Path(input_text)
    if not input_text.strip():
        yield Failure(input_text, input_text, "the name is empty")
    elif os.path.isdir(path) and _has_results(path.resolve(), skip_folder):
        yield Failure(
            path.name,
            input_text,
            "this is the output folder; name another input folder or another --output",
        )
    elif os.path.isdir(path):
        yield from _iter_folder_sources(path, skip_folder, count_unread)
    elif os.path.lexists(path):
        yield ImageSource(path, path.name, "")
    elif glob.has_magic(input_text):
        yield from _iter_glob_sources(input_text, skip_folder)
    else:
        yield Failure(path.name or input_text, input_text, "no such file or folder")


def _has_results(folder: Path, skip_folder: Path) -> bool:
    """Whether the images of this folder include, or would include, the run's own pictures."""
    return folder == skip_folder or (
        skip_folder in folder.parents and (skip_folder / "results.jsonl").exists()
    )


def _iter_folder_sources(
    folder: Path, skip_folder: Path, count_unread: Callable[[Mapping[str, int]], None]
) -> Iterator[SourceOrFailure]:
    refused: list[OSError] = []
    arrays: list[Path] = []
    seen, unread = 0, Counter[str]()
    for path in _iter_folder_files(folder, skip_folder, refused.append):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            seen += 1
            yield _create_folder_source(path, folder)
        elif suffix == ARRAY_SUFFIX and not seen:
            arrays.append(path)
        elif suffix in OTHER_PICTURE_SUFFIXES:
            unread[suffix] += 1
    yield from (_create_folder_source(path, folder) for path in arrays if not seen)
    for error in refused:
        where = str(error.filename)
        yield Failure(Path(where).name, where, error.strerror or "cannot be read")
    if not seen and not arrays and not refused:
        others = f" that camcli reads (but {format_suffix_counts(unread)})" if unread else ""
        yield Failure(folder.name, str(folder), f"no images in this folder{others}")
    count_unread(unread)


def _create_folder_source(path: Path, folder: Path) -> ImageSource:
    return ImageSource(path, path.relative_to(folder).as_posix(), "")


def _iter_folder_files(
    folder: Path, skip_folder: Path, onerror: Callable[[OSError], None]
) -> Iterator[Path]:
    """Yield the files of a folder and those below, without hidden ones and results of camcli."""
    for place, folders, files in _iter_folder_tree(folder, onerror):
        here = Path(place)
        folders[:] = sorted(
            f
            for f in folders
            if not f.startswith(".")
            and not is_run_folder_name(f)
            and not (f == skip_folder.name and (here / f).resolve() == skip_folder)
        )
        yield from (here / file for file in sorted(files) if not file.startswith("."))


def _iter_folder_tree(
    folder: Path, onerror: Callable[[OSError], None]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk without recursion: before Python 3.12 os.walk fails in a tree of 1000 levels."""
    waiting = [str(folder)]
    while waiting:
        for place, folders, files in islice(os.walk(waiting.pop(), onerror=onerror), 1):
            yield place, folders, files
            below = (os.path.join(place, f) for f in reversed(folders))  # noqa: PTH118 - as os.walk
            waiting += [path for path in below if not os.path.islink(path)]  # noqa: PTH114


def _iter_glob_sources(pattern: str, skip_folder: Path) -> Iterator[SourceOrFailure]:
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    try:
        matches = sorted(root.glob(str(Path(*parts[fixed:]))))
    except (ValueError, OSError, RecursionError) as error:
        yield Failure(pattern, pattern, getattr(error, "strerror", None) or str(error))
        return
    wanted = [
        path
        for path in matches
        if path.suffix.lower() in {*IMAGE_SUFFIXES, ARRAY_SUFFIX}
        and path.is_file()
        and skip_folder != path.resolve().parent
        and not any(map(is_run_folder_name, path.relative_to(root).parts[:-1]))
    ]
    pictures = [path for path in wanted if path.suffix.lower() != ARRAY_SUFFIX]
    for path in pictures or wanted:
        yield ImageSource(path, path.relative_to(root).as_posix(), "")
    if not wanted:
        yield Failure(pattern, pattern, "no image matches this pattern")


def _iter_unique_sources(items: Iterable[SourceOrFailure]) -> Iterator[SourceOrFailure]:
    seen: set[Path] = set()
    for item in items:
        path = Path(item.path).absolute()
        if path not in seen:
            seen.add(path)
            yield item


def create_output_stems(names: Sequence[str]) -> list[str]:
    """A distinct output stem for each input name, folders kept.

    `birds/a.jpg` becomes `birds/a`. If two stems are equal (letter case does not count), both keep
    their suffix. If that is not enough, later ones get a number: `a.jpg`, `a.jpg~2`.
    """
    names = [_confine_name(PurePosixPath(name)) for name in names]
    short = [str(PurePosixPath(name).with_suffix("")) for name in names]
    count = Counter(stem.casefold() for stem in short)
    taken: set[str] = set()
    return [
        _choose_free_stem(stem if count[stem.casefold()] == 1 else name, taken)
        for stem, name in zip(short, names, strict=True)
    ]


def _confine_name(name: PurePosixPath) -> str:
    """Change a name so that it cannot lead out of the output folder, even if a glob has `..`."""
    return name.name if ".." in name.parts or name.is_absolute() else str(name)


def _choose_free_stem(stem: str, taken: set[str]) -> str:
    candidate, number = stem, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{stem}~{number}"
    taken.add(candidate.casefold())
    return candidate
