"""How fast the network trains and predicts at full size, beside MONAI's DenseNet121 in three dimensions.

    pip install '.[learn,fast]' 'monai>=1.5'     # MONAI takes the torch that is there
    python examples/benchmark_training.py [--device cuda]

Each line is measured in a process of its own, by turns with the product of two large float32 matrices, which is taken
for the machine's peak: what else runs on the machine slows both. Slabs are 1 x 16 x 128 x 128. MONAI's network halves
every axis five times and refuses 16 slices, so it gets as many voxels as 1 x 64 x 64 x 64.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

SLAB = (1, 16, 128, 128)
CUBE = (1, 64, 64, 64)
SAMPLINGS = 5
"""Slabs of a case in prediction."""

MATRIX = 3072

Step = Callable[[], object]


def seconds_of(step: Step, device: str) -> float:
    """What a step takes, until a GPU is done with it."""
    began = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def matrix_product(device: str) -> Callable[[], float]:
    """Seconds of one product of two square matrices."""
    side = MATRIX * (4 if device == "cuda" else 1)
    a, b = torch.randn(side, side, device=device), torch.randn(side, side, device=device)

    def run() -> float:
        return seconds_of(lambda: a @ b, device) * (MATRIX / side) ** 3

    run()
    return run


def giga_multiply_adds(model: nn.Module, slab: tuple[int, ...]) -> float:
    """Of convolutions and linear layers, for one slab."""
    work: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda m, _, out: work.append(out.numel() * m.weight[0].numel()))
        for layer in model.modules()
        if isinstance(layer, nn.Conv3d | nn.Linear)
    ]
    with torch.inference_mode():
        model.eval()(torch.zeros(1, *slab))
    for hook in hooks:
        hook.remove()
    return sum(work) / 1e9


def monai_network() -> nn.Module:
    from monai.networks.nets import DenseNet121

    return DenseNet121(spatial_dims=3, in_channels=1, out_channels=4)


def ucadi_network() -> nn.Module:
    from ucadi.learn.networks.architecture import Architecture
    from ucadi.learn.networks.registry import build

    return build(Architecture(), 0)


def monai_training(model: nn.Module, batch: int, half: bool, device: str) -> Step:
    """The loop of MONAI's tutorials: no memory format, momentum as ours."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    loss = nn.CrossEntropyLoss(torch.tensor([0.2, 0.2, 0.4, 0.2], device=device))
    x, y = torch.randn(batch, *CUBE, device=device), torch.arange(batch, device=device) % 4
    model.train()

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = model(x)
        loss(logits.float(), y).backward()
        optimiser.step()

    return step


def ucadi_training(model: nn.Module, batch: int, half: bool, device: str) -> Step:
    """The steps that `ucadi train` takes."""
    from ucadi.hyperparameters import Recipe
    from ucadi.learn.distributed import ALONE
    from ucadi.learn.recipe import steps
    from ucadi.learn.step import Trainer

    recipe = Recipe(batch_size=batch, precision="bfloat16" if half else "float32", learning_rate=0.001)
    trainer = Trainer(model, recipe, batch, None, ALONE)
    x, y = torch.randn(batch, *SLAB), torch.arange(batch) % 4
    if device == "cuda":
        x, y = x.pin_memory(), y.pin_memory()
    model.train()
    plan = steps(recipe, 1, [0] * batch)[0]

    def step() -> object:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):  # as ucadi train does
            return trainer.step(plan, x, y)

    return step


def predicting(run: Callable[[Tensor], Tensor], device: str, slab: tuple[int, ...] = SLAB) -> Step:
    slabs = torch.randn((SAMPLINGS, *slab), generator=torch.Generator().manual_seed(1)).to(device)

    def step() -> Tensor:
        with torch.inference_mode():
            return run(slabs)

    return step


def prediction(network: nn.Module, engine: str, device: str) -> Step:
    from ucadi.learn import engines

    if engine == "monai":
        return predicting(lambda slabs: network(slabs).softmax(dim=1), device, CUBE)
    return predicting(getattr(engines, engine)(network.eval()), device)


def line(name: str, batch: int, repeats: int, device: str) -> tuple[float, int, float, float, float]:
    """One line's seconds, slabs, GFLOP/s, those of the matrix product, and gigabytes."""
    torch.manual_seed(0)
    who, what, how = name.split(", ")
    of_monai = who.startswith("MONAI")
    network = monai_network() if of_monai else ucadi_network()
    work = giga_multiply_adds(network, CUBE if of_monai else SLAB)
    network.to(device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if what == "training":
        make = monai_training if of_monai else ucadi_training
        step, slabs, passes = make(network, batch, how == "bfloat16", device), batch, 3
    else:
        step, slabs, passes = prediction(network, how, device), SAMPLINGS, 1
    step()  # the first one makes caches
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if device == "cuda":
        memory = torch.cuda.max_memory_allocated() / 1e3
    product, seconds, products = matrix_product(device), [], []
    for _ in range(repeats):
        products.append(product())
        seconds.append(seconds_of(step, device))
    speed = 2 * work * slabs * passes / median(seconds)
    peak = 2 * MATRIX**3 / 1e9 / median(products)
    return median(seconds), slabs, speed, peak, memory / 1e6


def profile_of_training(batch: int, half: bool) -> dict[str, float]:
    """Shares of a step's time by kind of operation."""
    from torch.profiler import ProfilerActivity, profile

    kinds = {"convolution": "convolutions", "batch_norm": "norms", "relu": "activations", "cat": "copies"}
    kinds |= {"copy": "copies", "contiguous": "copies", "clone": "copies"}
    step = ucadi_training(ucadi_network(), batch, half, "cpu")
    step()
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        step()
    shares: dict[str, float] = defaultdict(float)
    for event in measured.key_averages():
        kind = next((kind for word, kind in kinds.items() if word in event.key), "the rest")
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    return {kind: share / total for kind, share in shares.items()}


@contextmanager
def dataset(cases: int) -> Iterator[Path]:
    """A dataset of full-size volumes of 120 slices."""
    from ucadi.ct.volume import Volume
    from ucadi.formats import dataset as dataset_format
    from ucadi.labels import Diagnosis

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        made = []
        for number in range(cases):
            smooth = np.cumsum(rng.integers(-8, 9, (120, 128, 128)), axis=2).astype(np.int16)  # compresses as a CT does
            volume = Volume(smooth, np.diag([2.5, 3.0, 3.0, 1.0])[[2, 1, 0, 3]])
            one = dataset_format.Case(
                id=f"{number:016x}", patient=f"{number:016x}", label=Diagnosis.COVID, volume=volume,
                positions_mm=volume.positions_mm, tags={}, series_digest="ab" * 32, flags=(),
            )  # fmt: skip
            made.append(one)
        dataset_format.write(path, made, [], size=128)
        yield path


def seconds_to_load() -> dict[str, float]:
    """Seconds from the file to one slab, plain and augmented."""
    from ucadi.formats import dataset as dataset_format
    from ucadi.hyperparameters import Recipe
    from ucadi.workflows.training import TrainingCases

    found = {}
    with dataset(8) as path, dataset_format.open(path) as data:
        for name, augment in (("plain", False), ("augmented", True)):
            cases = TrainingCases(data, Recipe(augment=augment))
            cases.slab(0, 0)
            began = time.perf_counter()
            for index in range(len(data)):
                cases.slab(1, index)
            found[name] = (time.perf_counter() - began) / len(data)
    return found


LINES = (
    "MONAI DenseNet121, training, float32",
    "ucadi DenseNet, training, float32",
    "MONAI DenseNet121, training, bfloat16",
    "ucadi DenseNet, training, bfloat16",
    "MONAI DenseNet121, prediction, monai",
    "ucadi DenseNet, prediction, exact",
    "ucadi DenseNet, prediction, folded",
    "ucadi DenseNet, prediction, openvino",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="slabs in a training step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    device = options.device
    processes = multiprocessing.get_context("spawn")
    print(torch.cuda.get_device_name() if device == "cuda" else "CPU", end=", ")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':40}{'s':>8}{'s a slab':>10}{'GFLOP/s':>9}{'peak':>7}{'share':>7}{'GB':>6}")
    for name in LINES:
        if device == "cuda" and name.endswith("openvino"):
            continue
        with ProcessPoolExecutor(1, processes) as pool:
            measured = pool.submit(line, name, options.batch, options.repeats, device)
            seconds, slabs, speed, peak, memory = measured.result()
        print(
            f"{name:40}{seconds:8.3f}{seconds / slabs:10.4f}{speed:9.0f}{peak:7.0f}{speed / peak:7.2f}{memory:6.1f}",
            flush=True,
        )
    if device == "cuda":
        return
    for half in (False, True):
        shares = sorted(profile_of_training(options.batch, half).items(), key=lambda item: -item[1])
        parts = ", ".join(f"{kind} {share:.0%}" for kind, share in shares)
        print(f"\na training step in {'bfloat16' if half else 'float32'}: {parts}", flush=True)
    loading = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in seconds_to_load().items())
    print(f"\nfrom the file to a slab: {loading}")
    model = ucadi_network()
    exact = prediction(model, "exact", "cpu")()
    for engine in ("folded", "openvino"):
        difference = (prediction(model, engine, "cpu")() - exact).abs().max().item()
        print(f"{engine}: probabilities differ by {difference:.1g} at most")


if __name__ == "__main__":
    main()
