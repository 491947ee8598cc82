"""Pictures: the right pixels in the right places, and the same bytes every time."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from ucadi.errors import FormatError, MismatchError
from ucadi.scoring.plots import confusion_png, montage_png, roc_png


def pixels(png: bytes) -> NDArray[np.float32]:
    image: NDArray[np.float32] = imread(io.BytesIO(png))[..., :3]
    return image


def curves() -> list[tuple[str, NDArray[np.int_], NDArray[np.float64]]]:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    return [(name, labels, rng.normal(size=60) + labels) for name in ("site a", "site b")]


def chest(slices: int = 20) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """A body of soft tissue in air with a lung on either side, and a hot spot in the patient's right one."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    hu = np.where(x**2 + y**2 < 0.9, 40, -1000)
    hu[(x / 0.6) ** 2 + (y / 0.6) ** 2 < 1] = -850
    heatmap = np.zeros((slices, 64, 64), np.float32)
    heatmap[min(13, slices - 1)] = np.exp(-((x + 0.4) ** 2 + y**2) / 0.02)
    return np.broadcast_to(hu, (slices, 64, 64)).astype(np.int16), heatmap


def test_same_bytes_whatever_the_user_s_settings() -> None:
    draw = [
        lambda: roc_png(curves(), "title", [("radiologist", 0.9, 0.8)]),
        lambda: confusion_png(np.arange(16).reshape(4, 4)),
        lambda: montage_png(*chest(), "title"),
    ]
    first = [picture() for picture in draw]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "pink", "savefig.dpi": 20, "image.cmap": "jet"}):
        second = [picture() for picture in draw]
    assert first == second
    assert all(png.startswith(b"\x89PNG") and b"Software" not in png for png in first)


def test_no_figure_is_left_with_pyplot() -> None:
    confusion_png(np.eye(4))
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_montage_keeps_the_patient_s_right_on_the_left() -> None:
    hu, heatmap = chest()
    plain, hot = pixels(montage_png(hu, 0 * heatmap, "")), pixels(montage_png(hu, heatmap, ""))
    changed = np.abs(plain - hot).max(axis=2) > 0.1
    rows, columns = np.nonzero(changed)
    assert len(rows) > 50
    # Four by four tiles from the head down: slice 14 of 20 takes the place of number 14 or 13, in the second row.
    height, width = plain.shape[0], 4 * (1.6 + 0.04) * 150
    assert 0.25 < rows.mean() / height < 0.5
    within_tile = columns.mean() / (width / 4) % 1
    assert 0.2 < within_tile < 0.4
    assert np.ptp(rows) < 100, "one slice only"
    assert np.ptp(columns) < 100


def test_montage_shows_lung_grey_and_tissue_bright() -> None:
    hu, heatmap = chest(1)
    image = pixels(montage_png(hu, 0 * heatmap[:1], ""))
    tile = image[int(0.42 * 150) :, : int(1.6 * 150)]
    lung, tissue = tile[120, 126], tile[120, 20]
    assert lung[0] == pytest.approx((-850 + 1350) / 1500, abs=0.02)
    assert tissue[0] == pytest.approx((40 + 1350) / 1500, abs=0.02)


@pytest.mark.parametrize("slices", [1, 3, 16, 100])
def test_montage_of_few_and_many_slices(slices: int) -> None:
    rng = np.random.default_rng(slices)
    image = pixels(montage_png(rng.integers(-1000, 100, (slices, 8, 10)), rng.random((slices, 8, 10)), ""))
    assert image.shape[1] == pytest.approx((4 * 1.64 + 0.04 + 0.95) * 150, abs=1)


def test_refusals() -> None:
    hu, heatmap = chest(2)
    with pytest.raises(MismatchError, match="the heatmap is"):
        montage_png(hu, heatmap[:1], "")
    with pytest.raises(FormatError, match="not finite"):
        montage_png(hu, heatmap[:2] * np.nan, "")
    with pytest.raises(MismatchError, match=r"\(2, 2\) for 4 labels"):
        confusion_png(np.eye(2))
    with pytest.raises(MismatchError, match="all 2 cases are positive"):
        roc_png([("a", [1, 1], [0.1, 0.2])])
