"""Which file of a folder holds the map of an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.map_files import MapFolder

IMAGES = ("a.jpg", "a.b.jpg", "x/c.jpg", "y/c.jpg")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("files", "image", "method", "found"),
    [
        (["a.npy", "a.gradcam.npz"], "a.jpg", None, "a.npy"),
        (["a.npz", "a.gradcam.npz"], "a.jpg", None, "a.npz"),
        (["a.npz", "a.gradcam.npz"], "a.jpg", "gradcam", "a.gradcam.npz"),
        (["a.gradcam.npz"], "a.jpg", None, "a.gradcam.npz"),
        (["a.jpg.cam.npz", "a.png.cam.npz"], "a.jpg", None, "a.jpg.cam.npz"),
        (["a.gradcam.npz", "a.b.gradcam.npz"], "a.jpg", None, "a.gradcam.npz"),
        (["a.gradcam.npz", "a.b.gradcam.npz"], "a.b.jpg", None, "a.b.gradcam.npz"),
        (["a.gradcam.npz", "a.gradcam++.npz"], "a.jpg", "gradcam", "a.gradcam.npz"),
        (["a.gradcam.blocks.4.npz"], "a.jpg", "gradcam", "a.gradcam.blocks.4.npz"),
        (["x/c.cam.npz", "y/c.cam.npz"], "y/c.jpg", None, "y/c.cam.npz"),
        (["c.cam.npz"], "y/c.jpg", None, "map is missing"),
        (["a.b.cam.npz"], "a.jpg", None, "map is missing"),
        (["a.cam.npz"], "a.jpg", "gradcam", "map is missing"),
        (["a.cam.npz", "a.gradcam.npz"], "a.jpg", None, "several maps"),
        (["a.cam.blocks.4.npz", "a.cam.blocks.6.npz"], "a.jpg", "cam", "several maps"),
    ],
)
def test_find(tmp_path: Path, files: list[str], image: str, method: str | None, found: str) -> None:
    touch(tmp_path, *files)
    result = MapFolder.from_images(tmp_path, IMAGES, method).find(image)
    if isinstance(result, Problem):
        assert result.kind == found
    else:
        assert result.relative_to(tmp_path).as_posix() == found


def test_several_maps_are_named_with_the_way_to_choose(tmp_path: Path) -> None:
    touch(tmp_path, "a.cam.npz", "a.gradcam.npz")
    problem = MapFolder.from_images(tmp_path, IMAGES).find("a.jpg")
    assert f"cam, gradcam in {tmp_path}; choose one with --method NAME" in str(problem)
