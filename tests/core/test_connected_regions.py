"""The labels of connected regions, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from camcli.core.connected_regions import label_regions

RNG = np.random.default_rng(0)


def draw_spiral(side: int) -> NDArray[np.bool_]:
    """A path of one pixel from the rim to the middle, which never touches itself."""
    mask = np.zeros((side, side), np.bool_)
    y, x, down, across = 0, 0, 0, 1
    mask[0, 0] = True
    while True:
        ahead = (y + 2 * down, x + 2 * across)
        if not all(0 <= n < side for n in (y + down, x + across)) or (
            all(0 <= n < side for n in ahead) and mask[ahead]
        ):
            down, across = across, -down
            if mask[y + 2 * down, x + 2 * across]:
                return mask
        y, x = y + down, x + across
        mask[y, x] = True


def assert_same_as_scipy(mask: NDArray[np.bool_]) -> None:
    found = label_regions(mask)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    assert np.array_equal(found.labels, labels)
    assert len(found.extents) == count
    assert list(found.extents) == ndimage.find_objects(labels)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.3, 0.4, 0.5, 0.7, 0.95, 1.0])
def test_noise_of_every_density(share: float) -> None:
    for shape in ((1, 1), (1, 40), (40, 1), (2, 2), (7, 7), (63, 90), (224, 224)):
        assert_same_as_scipy(RNG.random(shape) < share)


def test_smooth_blobs() -> None:
    for _ in range(20):
        rough = ndimage.gaussian_filter(RNG.standard_normal((120, 80)), 4)
        assert_same_as_scipy(rough > np.quantile(rough, RNG.random()))


@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_long_winding_regions(turned: int) -> None:
    comb = np.zeros((60, 61), np.bool_)
    comb[:, ::2] = True  # teeth that only the last row joins
    comb[-1] = True
    assert label_regions(np.rot90(comb, turned)).labels.max() == 1
    spiral = np.rot90(draw_spiral(81), turned)
    assert label_regions(spiral).labels.max() == 1
    for mask in (
        comb,
        spiral,
        ~spiral,
        np.eye(50, dtype=np.bool_),
        np.indices((9, 9)).sum(0) % 2 > 0,
    ):
        assert_same_as_scipy(np.rot90(mask, turned))


def test_an_empty_mask_has_no_regions() -> None:
    found = label_regions(np.zeros((5, 7), np.bool_))
    assert found.extents == ()
    assert not found.labels.any()
