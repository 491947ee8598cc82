"""Faster ways from slabs to logits than the network as it was trained; probabilities then differ a little.

Norms that follow a convolution are folded into it, and where the processor multiplies bfloat16 in hardware, it does.
OpenVINO, where it is installed, also joins the norms and activations that stand before convolutions with these.
What a way gives of the first slabs is compared with the network itself, which is used where they differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, Tracer
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ucadi.learn.bfloat16 import same_in_any_memory
from ucadi.learn.export import to_onnx
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.pooling import MaxPool
from ucadi.parts import Feature
from ucadi.progress import note

Engine = Callable[[Tensor], Tensor]
"""From slabs (N, 1, 16, H, W) to probabilities (N, 4)."""


TOLERANCE = 0.05
"""How far from the network's own a probability may be."""


def exact(model: Classifier) -> Engine:
    """The network itself, in float32."""
    return lambda slabs: model(slabs).softmax(dim=1)


def fastest(model: Classifier) -> Engine:
    """What is fastest here: OpenVINO if it is installed and there is no GPU, else the network with norms folded."""
    on_gpu = next(model.parameters()).device.type == "cuda"
    if not (on_gpu or Feature.OPENVINO.missing):
        return compared(openvino(model), model)
    return compared(folded(model), model)


def compared(engine: Engine, model: Classifier) -> Engine:
    """The engine, if of the first slabs it gives the same bits twice, and near the exact ones; else the exact one."""
    chosen: list[Engine] = []

    def run(slabs: Tensor) -> Tensor:
        if not chosen:
            right = same_in_any_memory(lambda: engine(slabs)) and bool(
                (engine(slabs) - exact(model)(slabs)).abs().max() <= TOLERANCE  # false for NaN
            )
            if not right:
                note("the fast way goes wrong on this processor: predicting in float32 instead")
            chosen.append(engine if right else exact(model))
        return chosen[0](slabs)

    return run


def folded(model: Classifier) -> Engine:
    """torch, with norms folded into the convolutions before them, channels last, in bfloat16 where that is fast."""
    device = next(model.parameters()).device
    network = without_following_norms(model).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    half = multiplies_bfloat16(device)

    def run(slabs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = network(slabs.to(memory_format=torch.channels_last_3d))
        return logits.float().softmax(dim=1)  # type: ignore[no-any-return]

    return run


class Layers(Tracer):
    """Follows a network from layer to layer; ours, which ask where a tensor is, are layers as torch's are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, MaxPool) or super().is_leaf_module(m, module_qualified_name)


def without_following_norms(model: Classifier) -> GraphModule:
    """A copy of the network in eval mode, in which convolutions do what the batch norms right after them did."""
    network = copy.deepcopy(model).eval()
    traced = GraphModule(network, Layers().trace(network))
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm, before = modules.get(str(node.target)), node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm3d) or not isinstance(before, Node) or len(before.users) > 1:
            continue
        convolution = modules.get(str(before.target))
        if isinstance(convolution, nn.Conv3d):
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def openvino(model: Classifier) -> Engine:
    """OpenVINO on the CPU. It reads an ONNX file from memory: its own converter would report that it was used."""
    import openvino as ov

    core = ov.Core()
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    precision = "bf16" if multiplies_bfloat16(torch.device("cpu")) else "f32"
    network = core.read_model(to_onnx(model))
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": precision, **threads})
    return lambda slabs: torch.from_numpy(compiled(slabs.numpy())[0].copy())


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
