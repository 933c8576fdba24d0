"""ImageNet's names, against timm's own reader of the same tables."""

from __future__ import annotations

import pytest
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from camcli.io import imagenet_names
from camcli.io.imagenet_names import IDS_FILES, load_imagenet_names


@pytest.mark.parametrize("count", IDS_FILES)
def test_names_are_those_of_timm(count: int) -> None:
    info = ImageNetInfo(infer_imagenet_subset({"num_classes": count}) or "")
    found = load_imagenet_names(count)
    assert found is not None
    assert [wordnet_id for wordnet_id, _ in found] == info.label_names()
    assert [names for _, names in found] == info.label_descriptions()


@pytest.mark.parametrize("count", [0, 1, 2, 20, 80, 365, 999, 1001, 10450, 21844])
def test_other_numbers_have_no_names(count: int) -> None:
    assert load_imagenet_names(count) is None
    assert infer_imagenet_subset({"num_classes": count}) is None


def test_timm_itself_is_asked_where_it_has_no_such_files(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = load_imagenet_names(1000)
    monkeypatch.setattr(imagenet_names, "NAMES_FILE", "names.txt")
    assert imagenet_names._find_table_folder() is None
    assert load_imagenet_names(1000) == wanted
