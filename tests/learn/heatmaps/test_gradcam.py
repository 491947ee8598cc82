"""Grad-CAM is the gradient that it claims to be, the class activation map, and finds a planted lesion."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.hyperparameters import Recipe
from ucadi.learn.heatmaps.gradcam import activation_maps, gradcam, place
from ucadi.learn.loop import train
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.registry import build

TINY = Architecture(width=4, slices=8, size=16)


def slabs(repeats: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(repeats, 1, 8, 16, 16)).astype(np.float32)


@pytest.fixture
def model() -> Classifier:
    return build(TINY, 0).eval()


def test_weights_are_the_gradient_by_finite_differences(model: Classifier) -> None:
    """Adding t to every place of a channel changes the logit by t times the channel's weight."""
    double = model.double()
    x = torch.from_numpy(slabs(1)).double()
    with torch.no_grad():
        features = double.features(x)
        t, expected = 1e-4, torch.zeros_like(features[:, :1])
        for channel in range(features.shape[1]):
            shift = torch.zeros_like(features)
            shift[:, channel] = t
            slope = (double.classify(features + shift) - double.classify(features - shift))[0, 2] / (2 * t)
            expected += slope * features[:, channel : channel + 1]
    torch.testing.assert_close(activation_maps(double, x, 2), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("diagnosis", range(4))
def test_is_the_class_activation_map(model: Classifier, diagnosis: int) -> None:
    """Zhou et al. 2016: the features weighted by the linear layer's row, here in plain numpy."""
    x = torch.from_numpy(slabs())
    with torch.no_grad():
        features, logits = model.features(x).numpy(), model(x).numpy()
    weight, bias = model.classifier.weight.detach().numpy(), model.classifier.bias.detach().numpy()
    expected = np.einsum("c,nczyx->nzyx", weight[diagnosis], features)
    maps = activation_maps(model, x, diagnosis).numpy()[:, 0]
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)
    # ... and the mean over places, plus the bias, is the logit.
    np.testing.assert_allclose(maps.mean(axis=(1, 2, 3)) + bias[diagnosis], logits[:, diagnosis], rtol=1e-4, atol=1e-5)


def test_any_layer_can_be_looked_at(model: Classifier) -> None:
    x = torch.from_numpy(slabs())
    last = activation_maps(model, x, 1)
    torch.testing.assert_close(activation_maps(model, x, 1, "last_act"), last, rtol=1e-3, atol=1e-5)
    assert activation_maps(model, x, 1, "act").shape == (3, 1, 8, 16, 16)
    with pytest.raises(UsageError, match="has no layer 'nowhere'"):
        activation_maps(model, x, 1, "nowhere")
    with pytest.raises(UsageError, match="has no places"):
        activation_maps(model, x, 1, "classifier")


def test_randomised_weights_change_the_map(model: Classifier) -> None:
    """The sanity check of Adebayo et al. (NeurIPS 2018): an explanation that ignores the weights would stay."""
    before = gradcam(model, slabs(), 1).values
    after = gradcam(build(TINY, 1).eval(), slabs(), 1).values
    assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.5


def test_range_shape_and_maxima(model: Classifier) -> None:
    heatmaps = gradcam(model, slabs(), 1)
    assert heatmaps.values.shape == (3, 8, 16, 16)
    assert heatmaps.values.dtype == np.float32
    assert heatmaps.values.min() >= 0
    np.testing.assert_allclose(heatmaps.values.max(axis=(1, 2, 3)), 1, rtol=1e-6)
    alone = gradcam(model, slabs()[1:2], 1)
    np.testing.assert_allclose(alone.maxima, heatmaps.maxima[1:2], rtol=1e-5)
    np.testing.assert_allclose(alone.values[0], heatmaps.values[1], atol=1e-5)


def test_nothing_speaks_for_it(model: Classifier) -> None:
    with torch.no_grad():
        model.last_norm.weight.zero_()  # features are then 1 everywhere
        model.last_norm.bias.fill_(1)
        model.classifier.weight.fill_(-1)
    heatmaps = gradcam(model, slabs(), 0)
    assert not heatmaps.values.any()
    assert not heatmaps.maxima.any()


def test_leaves_no_gradients_behind(model: Classifier) -> None:
    gradcam(model, slabs(), 0)
    assert all(p.grad is None for p in model.parameters())


def test_points_at_a_planted_lesion() -> None:
    """The pointing game (Zhang et al. 2018): the heatmap's highest voxel lies in the lesion, give or take the
    grain of the last feature map, 4 voxels."""
    places: dict[tuple[int, int], tuple[int, int, int]] = {}

    def slab(epoch: int, index: int) -> NDArray[np.float32]:
        rng = np.random.default_rng((epoch, index))
        values = rng.normal(size=(1, 8, 32, 32))
        if index % 2:
            z, y, x = rng.integers(0, (5, 25, 25))
            values[:, z : z + 4, y : y + 8, x : x + 8] += 2
            places[epoch, index] = int(z) + 2, int(y) + 4, int(x) + 4
        return values.astype(np.float32)

    model = build(Architecture(width=4, slices=8, size=32, classes=2), 0)
    recipe = Recipe(
        learning_rate=0.05, batch_size=8, warmup_epochs=1, total_epochs=8, loss_weights=(0.5, 0.5), drop_rate=0.0
    )
    train(model, slab, [0, 1] * 16, recipe, first_epoch=0, epochs=8)
    hits = 0
    for index in range(1, 40, 2):
        values = gradcam(model, slab(99, index)[None], 1).values[0]
        peak = np.unravel_index(values.argmax(), values.shape)
        away = np.abs(np.subtract(peak, places[99, index]))
        hits += bool((away <= (2 + 4, 4 + 4, 4 + 4)).all())
    assert hits >= 18, "of 20"


def test_refusals(model: Classifier) -> None:
    with pytest.raises(MismatchError, match="no diagnosis 4"):
        gradcam(model, slabs(), 4)
    with pytest.raises(MismatchError, match="slabs are"):
        gradcam(model, slabs()[..., 1:], 0)
    with pytest.raises(FormatError, match="not finite"):
        gradcam(model, slabs() * np.float32(np.inf), 0)


# Back on the volume


def test_place_interpolates_and_holds_the_ends() -> None:
    heatmaps = np.array([0.0, 1.0, 0.5], np.float32).reshape(1, 3, 1, 1)
    volume = place(heatmaps, np.array([[1, 3, 7]]), 9)
    assert volume.dtype == np.float32
    np.testing.assert_allclose(volume[:, 0, 0], [0, 0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.5])


def test_place_averages_repeats_and_copies() -> None:
    heatmaps = np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 1.0]], np.float32).reshape(2, 3, 1, 1)
    volume = place(heatmaps, np.array([[0, 0, 2], [0, 1, 2]]), 3)
    np.testing.assert_allclose(volume[:, 0, 0], [0.75, 0.75, 0.75])


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_place_agrees_with_numpy_and_keeps_the_range(seed: int, slices: int) -> None:
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.choice(slices, size=(1, min(16, slices)), replace=False), axis=1)
    heatmaps = rng.random((*indices.shape, 2, 3)).astype(np.float32)
    volume = place(heatmaps, indices, slices)
    assert volume.shape == (slices, 2, 3)
    assert heatmaps.min() - 1e-6 <= volume.min() <= volume.max() <= heatmaps.max() + 1e-6
    for y, x in np.ndindex(2, 3):
        np.testing.assert_allclose(
            volume[:, y, x], np.interp(np.arange(slices), indices[0], heatmaps[0, :, y, x]), rtol=1e-5
        )


@pytest.mark.parametrize("indices", [[[0, 1]], [[0, 1, 9]], [[-1, 1, 2]], [[2, 1, 0]]])
def test_place_refuses(indices: list[list[int]]) -> None:
    with pytest.raises(MismatchError, match="indices"):
        place(np.zeros((1, 3, 2, 2), np.float32), np.array(indices), 9)
