"""bfloat16 is used where a processor computes it right, and nowhere else: real kernels, and broken ones."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ucadi.errors import UsageError
from ucadi.hyperparameters import Recipe
from ucadi.learn import engines
from ucadi.learn.bfloat16 import FILLINGS, Float32Layer, _in_memory_of, keep_right, same_in_any_memory, wrong_gradients
from ucadi.learn.loop import train
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.registry import build
from ucadi.progress import show_with
from ucadi.translation.cyclegan import CycleGANTrainer
from ucadi.translation.networks import build as build_translator
from ucadi.translation.recipe import TranslationRecipe, TranslatorArchitecture

TINY = Architecture(width=4, slices=8, size=16)
LABELS = [0, 1, 2, 3, 0, 1, 2, 3]

SHAPES = [
    TINY,  # whose last convolutions see two slices
    Architecture(width=8, slices=8, size=16),
    Architecture(width=4, size=24, norm="group"),
    Architecture.of("resnet50", width=8, blocks=(1, 1, 1, 1), size=16),
    Architecture.of("resnet101", width=8, blocks=(1, 1, 2, 1), size=16),
    Architecture.of("xception", width=8, blocks=(1,), size=16),
    Architecture.of("xception", width=8, blocks=(1,), size=32),
]
"""Networks of which processors compute some layers wrong."""


def sample(architecture: Architecture, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    shape = (4, 1, architecture.slices, architecture.size, architecture.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(memory_format=layout)


def slab(epoch: int, index: int) -> np.ndarray:
    return np.random.default_rng((epoch, index)).normal(size=(1, 8, 16, 16)).astype(np.float32)


class HalfWritten(torch.autograd.Function):
    """A convolution's weight gradient whose last row a kernel forgets, as torch's do on some processors."""

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        ctx.half = torch.is_autocast_enabled("cpu")
        return weight.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        if not ctx.half:
            return gradient
        written = torch.empty_like(gradient)
        written[:-1] = gradient[:-1]
        return written


class TooLong(HalfWritten):
    """A gradient that is the same every time, and wrong."""

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        return gradient * 1e6 if ctx.half else gradient


class Nothing(HalfWritten):
    """A gradient that is not a number."""

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        return gradient * float("nan") if ctx.half else gradient


def broken(network: nn.Module, layer: str, fault: type[torch.autograd.Function]) -> nn.Module:
    """The network with a layer whose weight's gradient goes wrong in bfloat16."""

    class Broken(nn.Conv3d):
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
            return super()._conv_forward(x, fault.apply(weight), bias)

    network.get_submodule(layer).__class__ = Broken
    return network


@pytest.mark.parametrize("fault", [HalfWritten, TooLong, Nothing])
def test_a_layer_that_goes_wrong_is_found_and_computes_in_float32(fault: type[torch.autograd.Function]) -> None:
    before = keep_right(build(TINY, 0), sample(TINY))  # what this processor itself gets wrong
    network = broken(build(TINY, 0), "blocks.dense2_1.conv1", fault)
    lines: list[str] = []
    with show_with(lambda items, *_: iter(items), lines.append):
        kept = keep_right(network, sample(TINY))
    assert set(kept) == {*before, "blocks.dense2_1.conv1"}
    assert ("blocks.dense2_1.conv1" in lines[0]) or len(kept) > 4
    layer = network.get_submodule("blocks.dense2_1.conv1")
    assert isinstance(layer, Float32Layer)
    assert isinstance(layer, nn.Conv3d)
    assert list(network.state_dict()) == list(build(TINY, 0).state_dict()), "the weights keep their names"
    assert wrong_gradients(network, sample(TINY)) == []


def test_what_float32_does_not_mend_is_refused() -> None:
    class Stubborn(HalfWritten):
        @staticmethod
        def forward(ctx, weight: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
            ctx.half = Stubborn.trained_in_half
            return weight.clone()

        trained_in_half = True

    network = broken(build(TINY, 0), "blocks.dense2_1.conv1", Stubborn)
    with pytest.raises(UsageError, match=r"bfloat16 goes wrong .* blocks\.dense2_1\.conv1") as caught:
        keep_right(network, sample(TINY))
    assert "float32" in (caught.value.hint or "")


def test_training_takes_the_guard_and_gives_the_same_bits_in_any_memory() -> None:
    recipe = Recipe(batch_size=4, total_epochs=2, warmup_epochs=0, precision="bfloat16")

    def trained() -> Tensor:
        network = broken(build(TINY, 0), "blocks.dense2_1.conv1", HalfWritten)
        train(network, slab, LABELS, recipe, first_epoch=0, epochs=2)  # type: ignore[arg-type]
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert same_in_any_memory(trained)
    assert trained().isfinite().all()


def test_without_the_guard_that_network_is_garbage() -> None:
    """The broken layer is as broken as torch's kernels: else the tests above would show nothing."""
    network = broken(build(TINY, 0), "blocks.dense2_1.conv1", HalfWritten)
    assert "blocks.dense2_1.conv1.weight" in wrong_gradients(network, sample(TINY))


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last_3d], ids=["contiguous", "channels last"]
)
@pytest.mark.parametrize("architecture", SHAPES, ids=lambda a: f"{a.name} {a.slices}x{a.size} {a.norm}")
def test_on_this_processor_every_gradient_is_right(architecture: Architecture, layout: torch.memory_format) -> None:
    """With the processor's own kernels, through another loss than the guard's."""
    network = build(architecture, 0).to(memory_format=layout)  # type: ignore[call-overload]
    slabs = sample(architecture, layout)
    keep_right(network, slabs)

    def gradient(half: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network.train()(slabs).float()
        loss = nn.functional.cross_entropy(logits, torch.arange(4))
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])

    assert same_in_any_memory(lambda: gradient(half=True))
    found, expected = gradient(half=True), gradient(half=False)
    assert found.isfinite().all()
    assert float(found.abs().max()) < 3 * float(expected.abs().max())


def test_fresh_memory_is_filled_where_there_is_a_way() -> None:
    """So the guard does not depend on luck: in tensors of any size, and in what a library allocates for itself."""
    for size in (1, 96, 1 << 18):
        first, second = (_in_memory_of(filling, lambda n=size: torch.empty(n).clone()) for filling in FILLINGS)
        assert first.isnan().all()
        assert second.isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
    malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

    def fresh() -> bytes:
        place = malloc(1 << 20)
        found = ctypes.string_at(place, 1 << 20)
        free(place)
        return found

    for filling in FILLINGS:
        assert _in_memory_of(filling, fresh) == bytes([filling]) * (1 << 20)


def test_translators_take_the_guard() -> None:
    architecture = TranslatorArchitecture(width=4, blocks=1, depth=3, size=32)
    for precision, taken in (("float32", False), ("bfloat16", True)):
        model = build_translator(architecture, 0)
        first = model.generators["contrast"].layers[0]  # type: ignore[index,union-attr]

        class Broken(nn.Conv2d):
            def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
                return super()._conv_forward(x, HalfWritten.apply(weight), bias)

        first.__class__ = Broken
        CycleGANTrainer(model, TranslationRecipe(precision=precision))
        assert isinstance(first, Float32Layer) is taken


def test_a_fast_way_that_goes_wrong_is_not_taken() -> None:
    model = build(TINY, 0).eval()
    slabs = sample(TINY)
    with torch.inference_mode():
        expected = engines.exact(model)(slabs)
        for wrong in (
            lambda _: torch.empty(4, 4),  # never written
            lambda x: engines.exact(model)(x).flip(1),
            lambda x: engines.exact(model)(x) * float("nan"),
        ):
            assert torch.equal(engines.compared(wrong, model)(slabs), expected)
        near = engines.compared(lambda x: engines.exact(model)(x) + 1e-3, model)
        assert not torch.equal(near(slabs), expected)
        assert torch.equal(near(slabs), expected + 1e-3)
