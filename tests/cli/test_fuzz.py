"""Whatever is typed, listed or lies in a file: it is understood, or refused in a short line."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from conftest import small
from hypothesis import example, given, settings
from hypothesis import strategies as st

from camcli.cli import console, options
from camcli.core.errors import CamcliError, LabelsError, LayerError, TargetError, UsageError
from camcli.core.thresholds import parse_threshold
from camcli.core.types import ImageSource
from camcli.engine import targets
from camcli.engine.smoothing import parse_smoothing_options
from camcli.io import discovery as sources
from camcli.io import labels
from camcli.io.writers import WRITERS
from camcli.methods import registry as methods
from camcli.methods.option_parsing import create_variant, parse_methods
from camcli.models.introspection import selectors as layers

T = TypeVar("T")
NAMES = ("great tit", "crow", "Blue_Tit", "A-vs-B")
CLASSES = labels.create_labels(NAMES)
HOSTILE = (*" \n\0,:=-+.*?[]{}/~", "..", "0", "1", "٣", "²", "9" * 400, "nan", "1e999", "x" * 5000)
BROKEN = st.characters(exclude_categories=())  # file names that are not UTF-8 have half characters
PRINTED = st.characters(exclude_categories=["C", "Z"], exclude_characters="_")
WORD = st.text(PRINTED, min_size=1, max_size=8).filter(lambda word: word[0] not in "[{")
FILE = st.binary(min_size=1, max_size=40).map(os.fsdecode) | WORD
SAFE = FILE.filter(lambda name: not set("/\0") & set(name) and name not in (".", ".."))
fuzz = settings(derandomize=True, database=None, deadline=2000, max_examples=100)


def mix(*words: str) -> st.SearchStrategy[str]:
    """Text that is nearly what is wanted, or not at all."""
    usual, hostile = st.sampled_from(words), st.sampled_from(HOSTILE)
    pieces = st.lists(usual | usual | hostile | st.text(BROKEN, max_size=3), max_size=7)
    return pieces.map("".join) | usual | st.text(BROKEN)


def tried(action: Callable[[], T], *errors: type[CamcliError], naming: str = "") -> T | None:
    """What comes of it; nothing where it was refused in one short line that steers no terminal."""
    try:
        return action()
    except errors as error:
        with redirect_stderr(io.StringIO()) as shown:
            console.print_error(error)
        line = shown.getvalue().removesuffix("\n")
        assert (naming in line, line.isprintable(), 17 < len(line) < 2020) == (True, True, True)
        return None


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@fuzz
@given(spec=mix("stage", "blocks", "layer1", "norm1", "last", "all", "conv1", ".", "*", ","))
@example(spec="stage-9999..9999")
@example(spec="all,all")
@example(spec="*a" * 500 + "b")
@example(spec="x" * 100_000)
def test_any_layers_are_some_of_the_models_each_once(name: str, spec: str) -> None:
    known = small(name).layers
    found = tried(lambda: layers.parse_layer_spec(spec, known, lambda: known[-1]), LayerError)
    assert found is None or (found and set(found) <= set(known) and len(set(found)) == len(found))


@fuzz
@given(first=st.integers(-2, 7), until=st.integers(-2, 7), word=st.sampled_from(["", "stage"]))
def test_a_range_of_stages_is_those_in_order(first: int, until: int, word: str) -> None:
    known, spec = small("test_resnet").layers, f"stage{first}..{word}{until}"
    found = tried(lambda: layers.parse_layer_spec(spec, known, lambda: known[-1]), LayerError) or ()
    ends = [number + 6 if number < 0 else number for number in (first, until)]  # -1 is stage5
    wanted = range(ends[0], ends[1] + 1) if 1 <= ends[0] <= ends[1] <= 5 else ()
    assert [layer.stage for layer in found] == list(wanted)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@fuzz
@given(data=st.data())
def test_names_and_patterns_find_what_they_match_in_order(name: str, data: st.DataObject) -> None:
    known = small(name).layers
    specs = data.draw(st.lists(st.sampled_from([la.name for la in known]), min_size=1, max_size=4))
    for which, spec in enumerate(specs):
        hidden, mark = data.draw(st.sampled_from([("", ""), (r"[^.]+", "*"), (r"[^.]", "?")]))
        start = data.draw(st.integers(0, len(spec) - 1))
        specs[which] = spec[:start] + re.sub(hidden, mark, spec[start:], count=1)
    likes = [re.escape(s).replace(r"\*", "[^.]*").replace(r"\?", "[^.]") for s in specs]
    wanted = dict.fromkeys(la for like in likes for la in known if re.fullmatch(like, la.name))
    assert layers.parse_layer_spec(" , ".join(specs), known, lambda: known[-1]) == tuple(wanted)


def classes_of(spec: str, photo: Path) -> tuple[tuple[int, ...], ...] | None:
    """The classes that a target fixes for an image, if it can be had."""
    target = tried(lambda: targets.parse_target(spec)(CLASSES), UsageError, naming="--target")
    if target is None:
        return None
    fixed = tried(
        lambda: target.find_fixed_classes(ImageSource(photo, photo.name, "")), TargetError
    )
    for rule, classes in zip(target.rules, fixed or (), strict=fixed is not None):
        assert (not classes) == bool(rule.choose_classes)
        assert set(classes) <= set(range(len(NAMES)))
    return fixed


SPELLED = st.sampled_from(  # of a class its index, and its name with other blanks and letters
    [*((0, t) for t in ("0", "GREAT_TIT", " great  tit ")), (1, "Crow"), (2, "blue tit"), (2, "2")]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So deep that no pattern here leads out of what is the tests' own."""
    path = tmp_path_factory.mktemp("fuzz") / "1/2/3/4/5/6/7/8"
    (path / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b[1].JPG", "sub/c.png", "sub/notes.txt"):
        (path / name).touch()
    return path


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "text"
    path.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)
    return path


HEADS = st.sampled_from([b"image,class\n", b"\xef\xbb\xbfclass_index , image\r\n", b"[", b"{", b""])
CELLS = mix("a.jpg", "crow", '"', "image,class", "\r\n", "\n", ",", "]", "}", ":", "NaN", "0")


@fuzz
@given(head=HEADS, rest=st.binary() | CELLS.map(lambda text: text.encode(errors="surrogatepass")))
@example(head=b"image,class\n", rest=b"a.jpg," + b"x" * 140_000)
@example(head=b"", rest=b'{"0":' * 100_000)
@example(head=b"[", rest=b"9" * 5000 + b"]")
def test_any_file_is_targets_or_names_or_is_refused(folder: Path, head: bytes, rest: bytes) -> None:
    file = written(folder, head + rest)
    classes_of(f"@{file}", folder / "a.jpg")
    found = tried(lambda: labels.load_labels(file, 2), LabelsError, naming="--labels")
    assert [*map(type, found.names if found else ("", ""))] == [str, str]


ROWS = st.dictionaries(st.text(PRINTED | st.sampled_from(' \r\n",')), SPELLED, min_size=1)


@fuzz
@given(rows=ROWS, head=st.permutations(["image", "class", "width"]), end=st.sampled_from("\n\r"))
def test_every_image_of_a_table_has_its_class(
    folder: Path, rows: dict[str, tuple[int, str]], head: list[str], end: str
) -> None:
    named = {f"{name.replace('/', '')}.jpg": row for name, row in rows.items()}
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, head, "", quoting=csv.QUOTE_ALL, lineterminator=f"{end}\n")
    table.writeheader()
    table.writerows([{"image": name, "class": word} for name, (_, word) in named.items()] * 2)
    file = written(folder, "\ufeff" * (end == "\r") + text.getvalue())
    for name, (index, _) in named.items():
        assert classes_of(f"@{file}", Path("/photos", name)) == ((index,),)
    assert classes_of(f"@{file}", Path("/photos/another.png")) is None
    table.writerow({"image": name, "class": "another"})
    assert classes_of(f"@{written(folder, text.getvalue())}", Path("/photos", name)) is None


ENTRY = st.text(max_size=3) | st.lists(st.text(max_size=2), max_size=2)
ODD = st.none() | st.integers() | st.floats() | st.dictionaries(st.text(max_size=2), ENTRY)
LISTS = st.lists(ENTRY, max_size=3) | st.lists(ENTRY | ODD | st.lists(ODD), max_size=3)
NUMBERED = LISTS.map(lambda entries: {str(n): entry for n, entry in enumerate(entries)})
KEYED = st.dictionaries(st.sampled_from(["0", "1", "-1", "00"]), ENTRY)


@fuzz
@given(document=LISTS | NUMBERED | KEYED)
def test_a_json_file_has_a_name_a_class_or_is_refused(folder: Path, document: Any) -> None:
    numbers = map(str, range(len(document)))
    entries = [*map(document.get, numbers)] if isinstance(document, dict) else document
    lists: list[Any] = [[entry] if isinstance(entry, str) else entry for entry in entries]
    good = all(isinstance(ns, list) and ns and all(isinstance(n, str) for n in ns) for ns in lists)
    file = written(folder, json.dumps(document))
    found = tried(lambda: labels.load_labels(file, None), LabelsError, naming="--labels")
    assert (found.names if found else None) == (tuple(n[-1] for n in lists) if good else None)


@fuzz
@given(names=st.lists(WORD, min_size=1, unique_by=str.casefold), order=st.randoms())
def test_names_are_found_again_in_every_form(
    folder: Path, names: list[str], order: random.Random
) -> None:
    numbered = [(str(n), name) for n, name in enumerate(names)]
    order.shuffle(numbered)
    forms = ["\n".join(names), "\ufeff" + "\r\n".join(names) + "\r\n\r\n", json.dumps(names)]
    forms += [json.dumps(dict(numbered)), json.dumps({n: ["an id", w] for n, w in numbered})]
    for found in [labels.load_labels(written(folder, form), len(names)) for form in forms]:
        assert [*map(found.find_class, names)] == list(range(len(found.names)))


TREE = st.sampled_from(["a", "A", "b", "ß", "SS", "İ", "i", ".jpg", ".PNG", "~2", "..", "/", "."])
NAME = st.lists(TREE | st.text(BROKEN, max_size=1), max_size=7).map("".join)


@fuzz
@given(given_=st.lists(NAME.filter(lambda n: PurePosixPath(n).name not in ("", "..")), max_size=8))
def test_stems_are_distinct_and_stay_below_the_output_folder(given_: list[str]) -> None:
    stems = sources.create_output_stems(given_)
    assert len({stem.casefold() for stem in stems}) == len(stems) == len(given_)
    for stem, name in zip(stems, given_, strict=True):
        file = PurePosixPath(f"{stem}.tabby.jpg")
        assert not {"..", "/"} & set(file.parts)
        assert file.name.startswith(PurePosixPath(name).with_suffix("").name)


@fuzz
@given(files=st.lists(SAFE, min_size=1, max_size=6, unique_by=str.casefold))
@example(files=["a*?[b].txt"])
def test_every_file_of_a_list_is_found_once_whatever_its_name(files: list[str]) -> None:
    with TemporaryDirectory() as place:
        paths = [f"{place}/{name}" for name in files]
        for path in paths:
            Path(path).touch()
        for end in "\0\n" if "\n" not in "".join(files) else "\0":
            listed = sources.parse_path_list(end.join([*paths, " ", paths[0], ""]))
            assert listed == [*paths, paths[0]]
            assert [
                str(f.path) for f in sources.find_image_sources(["-"], listed, Path("out"))
            ] == paths


@fuzz
@given(inputs=st.lists(mix("a.jpg", "sub", "/", "*", "**", "[ab]", "?", ".jpg"), max_size=3))
@example(inputs=["*/" * 2000 + "a"])
@example(inputs=["sub/" + "x" * 300 + "/*"])
def test_any_inputs_are_images_or_say_why_not(folder: Path, inputs: list[str]) -> None:
    below = [f"{folder}/{given_}" for given_ in inputs]
    found = tried(lambda: sources.find_image_sources(below, [], folder / "out"), UsageError) or []
    images = [item for item in found if isinstance(item, ImageSource)]
    assert bool(images) == bool(found)
    assert all(image.path.exists() for image in images)
    assert len({Path(item.path).absolute() for item in found}) == len(found)


READERS: dict[str, tuple[Callable[[str], Any], Callable[[Any], bool]]] = {
    "--size": (options.parse_input_size, lambda sides: all(0 < side <= 4096 for side in sides)),
    "--threshold": (
        parse_threshold,
        lambda t: t == "otsu" or float(str(t).strip("p")) >= 0,
    ),
    "--mean": (
        lambda t: options.parse_transform_options(t, None, None)["mean"],
        lambda m: 0 <= min(m) <= 1,
    ),
    "--std": (
        lambda t: options.parse_transform_options(None, t, None)["std"],
        lambda s: 0 < min(s) <= 1,
    ),
    "--save": (options.parse_output_kinds, lambda kinds: set(kinds) <= WRITERS.keys()),
    "--smooth": (lambda t: parse_smoothing_options(t, 0, "squash"), bool),
    "--target": (
        lambda t: targets.parse_target(t)(CLASSES),
        lambda t: 0 < len(t.rules) <= len(NAMES),
    ),
    "": (lambda t: parse_methods([t]), bool),
}
VALUES = mix(
    *("224", "x", "p", "otsu", "0.5", "e", "boxes", "noise:", "top:", "finer", "crow", "-vs-", "@"),
    *("folder", "gradcam", "smoothgrad", "samples=5"),
)


@pytest.mark.parametrize("option", READERS)
@fuzz
@given(text=VALUES)
@example(text="@no\0where")
@example(text="9999x9999")
@example(text="@" + "x" * 5000)
def test_any_value_is_one_that_fits_or_is_refused_by_its_option(option: str, text: str) -> None:
    read, fits = READERS[option]
    value = tried(lambda: read(text), UsageError, naming=option)
    assert value is None or fits(value)


SETTINGS = st.sampled_from([(m, key) for m in methods.METHODS.values() for key in m.options])


@fuzz
@given(which=SETTINGS, text=mix("1", "2", "-1", ".5", "e3", "true", "softmax", "max", "Infinity"))
@example(which=(methods.METHODS["smoothgrad"], "noise"), text="1" + "0" * 400)
def test_any_setting_is_of_its_kind_and_alike_in_both_places(
    which: tuple[methods.Method, str], text: str
) -> None:
    method, key = which
    read = tried(
        lambda: options.parse_method_settings([f"{key}={text}"], [method])[method.name], UsageError
    )
    variant: Any = tried(lambda: create_variant(method.name, {key: text}), UsageError)
    value: Any = read[key] if read else None
    assert (variant.function.keywords[key] if variant else None) == value
    assert type(value) in (type(None), type(method.options[key]))
    assert isinstance(value, str | None) or 0 <= value <= 2**31
    assert text != "1" or value is not None or isinstance(method.options[key], str | bool)
