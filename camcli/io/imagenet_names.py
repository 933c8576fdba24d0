"""ImageNet's class names, from the tables in timm's package, without importing timm."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

# The number of classes and the list of their WordNet ids, as timm tells ImageNet's subsets apart.
IDS_FILES = {
    1000: "imagenet_synsets.txt",
    11221: "imagenet21k_miil_synsets.txt",
    11821: "imagenet12k_synsets.txt",
    21841: "imagenet22k_synsets.txt",
    21842: "imagenet22k_ms_synsets.txt",
    21843: "imagenet21k_goog_synsets.txt",
}
NAMES_FILE = "imagenet_synset_to_lemma.txt"


def load_imagenet_names(class_count: int) -> list[tuple[str, str]] | None:
    """The WordNet id of each class and its names, "tench, Tinca tinca"; None for other numbers.

    `import timm` takes seconds, and its tables are plain text. A timm that keeps them elsewhere
    is asked itself.
    """
    if class_count not in IDS_FILES:
        return None
    folder = _find_table_folder()
    if folder is None:
        return _ask_timm(class_count)
    ids = (folder / IDS_FILES[class_count]).read_text(encoding="utf-8").splitlines()
    wanted = set(ids)
    with (folder / NAMES_FILE).open(encoding="utf-8") as file:
        entries = (line.rstrip("\n").partition("\t") for line in file)
        names = {key: value for key, _, value in entries if key in wanted}
    return [(key, names[key]) for key in ids]


def _find_table_folder() -> Path | None:
    """The folder of timm's tables; `find_spec` does not run the package."""
    spec = find_spec("timm")
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / "data" / "_info"
        if all((folder / name).is_file() for name in (NAMES_FILE, *IDS_FILES.values())):
            return folder
    return None


def _ask_timm(class_count: int) -> list[tuple[str, str]] | None:
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": class_count})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    ids = [info.index_to_label_name(index) for index in range(class_count)]
    return [(key, info.label_name_to_description(key)) for key in ids]
