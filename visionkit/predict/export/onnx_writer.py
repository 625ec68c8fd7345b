"""Graphs of tensors as ONNX, in operators of the default domain."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from timm.layers import padding
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from visionkit.predict.export.detection_graph import suppress
from visionkit.predict.export.metadata import install

__all__ = ["OPSET", "to_onnx", "to_program"]

OPSET = 18  # onnxruntime has it since 1.14, onnxruntime-web too
_NAMES = {0: "batch", 2: "height", 3: "width"}


def to_program(graph: Any, example: Tensor, *, dynamic_size: bool) -> torch.export.ExportedProgram:
    """Return a graph as a program of `torch.export`, for batches of any number of images.

    Args:
        graph: See `make_graph`.
        example: Images as it takes them, `(2, C, H, W)`; their values do not count. Where the size is free,
            their height and width should be different, and no multiples of the network's reduction: what pads
            and crops is then in the program.
        dynamic_size: Whether height and width are free, too.
    """
    free = (0, 2, 3) if dynamic_size else (0,)
    shapes = {"images": dict.fromkeys(free, torch.export.Dim.DYNAMIC)}
    with _quiet(), _same_padding_in_whole_numbers(), _attention_in_steps(), torch.no_grad():
        return torch.export.export(
            graph,
            (example,),
            dynamic_shapes=shapes,
            strict=False,
            # What a branch asked of a size is then no reason to refuse; other sizes are tried afterwards.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def to_onnx(program: torch.export.ExportedProgram, outputs: tuple[str, ...], *, dynamic_size: bool) -> Any:
    """Return a program as an `onnx.ModelProto`, with its weights, its input named "images".

    Args:
        program: See `to_program`.
        outputs: Names of its outputs.
        dynamic_size: Whether its height and width are free.

    Raises:
        InputError: A package of the extra `export` is not installed.
    """
    install("onnxscript")
    install("onnx")
    free = (0, 2, 3) if dynamic_size else (0,)
    with _quiet(), _attention_in_steps():
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_shapes={"images": {axis: _NAMES[axis] for axis in free}},
            custom_translation_table={torch.ops.visionkit.suppress.default: _suppress_in_onnx},
            verbose=False,
        )
    return made.model_proto


def _suppress_in_onnx(boxes: Any, scores: Any, threshold: float, limit: int) -> Any:
    """Translate `suppress`: `NonMaxSuppression` names what it keeps, and each of these is set to true."""
    from onnxscript import opset18

    op: Any = opset18  # which values a constant takes is not in its types

    def whole(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    by_class = op.Unsqueeze(scores, whole(1))  # (B, N) -> (B, 1, N)
    zero = op.Constant(value_floats=[0.0])
    chosen = op.NonMaxSuppression(
        boxes, by_class, whole(limit), op.Constant(value_floats=[threshold]), zero
    )  # (M, 3): row, class, box
    where = op.Gather(chosen, whole(0, 2), axis=1)  # (M, 2)
    true = op.Expand(op.Constant(value_float=1.0), op.Slice(op.Shape(where), whole(0), whole(1)))  # (M,)
    return op.Cast(op.ScatterND(op.Mul(scores, zero), where, true), to=9)  # 9 is bool


def _attention_in_steps() -> Any:
    """Let attention be traced with the memory layout of its steps, as ONNX has it.

    A fused kernel lays its result out in another way, and a `view` of that is none of the steps' result.
    """
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def _same_padding_in_whole_numbers() -> Iterator[None]:
    """Let timm's layers with "same" padding count it without division and maximum.

    Their expressions hold the size of the input three times, and so on with each layer: after five of them a
    size takes minutes. Here the padded size is a product, in which that of the input cancels out.
    """
    original = padding.get_same_padding

    def count(x: Any, kernel_size: int, stride: int, dilation: int) -> Any:
        extent = (kernel_size - 1) * dilation + 1
        if extent < stride:  # it may be negative
            return original(x, kernel_size, stride, dilation)
        return ((x + stride - 1) // stride - 1) * stride + extent - x

    padding.get_same_padding = count
    try:
        yield
    finally:
        padding.get_same_padding = original


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporters say of their own steps."""
    names = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # a graph of what failed is printed
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_ = suppress  # registers the operator that `to_onnx` translates
