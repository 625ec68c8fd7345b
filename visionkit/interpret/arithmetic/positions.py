"""What every tensor of a forward pass sees of the image: receptive fields carried through torch's operations.

A `TorchDispatchMode` sees each operation with its arguments, whichever module or function called it. Where an
operation mixes positions otherwise than by a window (attention, windows cut out of a map), a receptive field
by formula ends, and the operation is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from visionkit.interpret.arithmetic.formulas import Field, Window
from visionkit.interpret.arithmetic.resizing import RESIZES, resized_field, scales_of

__all__ = ["Positions", "positions_after"]

_PASS = {
    "clone", "alias", "detach", "contiguous", "_to_copy", "to", "lift_fresh", "_reshape_alias", "copy",
    "dropout", "native_dropout", "batch_norm", "native_batch_norm", "cudnn_batch_norm",
    "_native_batch_norm_legit_no_training", "_batch_norm_with_update", "_batch_norm_no_update", "hardswish",
    "hardsigmoid", "hardtanh", "relu6", "relu", "silu", "gelu", "elu", "leaky_relu", "mish", "softplus",
    "prelu", "_prelu_kernel", "threshold", "log_sigmoid_forward", "rrelu_with_noise", "bernoulli",
    "native_group_norm", "cat", "where", "masked_fill",
}  # fmt: skip
_REDUCE = {
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "var_mean",
    "std",
    "std_mean",
    "linalg_vector_norm",
    "norm",
    "max",
}
_POOLS = {"max_pool2d_with_indices", "avg_pool2d", "max_pool2d"}
_ADAPTIVE = {"_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"}
_PADS = {"constant_pad_nd", "reflection_pad2d", "replication_pad2d"}


@dataclass(frozen=True)
class Positions:
    """What a tensor's values see.

    Args:
        dims: Dimensions of the rows and the columns, counted from the last (-1), equal where both are one
            dimension; None where all values see the same.
        sides: Rows and columns.
        fields: What rows and columns see.
        gated: Whether a mean over a whole map was multiplied in or subtracted (squeeze-and-excitation, group
            norm), so that every value sees the whole image, too.
        mixed: The operation that ended the receptive field; empty before one.
        pad: Pixels added just before, `(left, right, top, bottom)`.
    """

    dims: tuple[int, int] | None
    sides: tuple[int, int]
    fields: tuple[Field, Field]
    gated: bool = False
    mixed: str = ""
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)

    def all(self) -> Positions:
        """Return what all positions see together."""
        fields = (self.fields[0].over(self.sides[0]), self.fields[1].over(self.sides[1]))
        return Positions(None, (1, 1), fields if self.dims else self.fields, self.gated, self.mixed)


Rule = Callable[[Positions, Tensor, Sequence[Any], Tensor], Positions | None]


def positions_after(
    name: str,
    inputs: Sequence[tuple[Tensor, Positions]],
    args: Sequence[Any],
    output: Tensor,
    *,
    pointwise: bool,
) -> Positions:
    """Return what the output of an operation sees.

    Args:
        name: The operation, without its overload.
        inputs: The tensors among the arguments that depend on the image, with what they see.
        args: All arguments in the order of the operation's schema.
        output: Its output, the first if there are several.
        pointwise: Whether it takes each position by itself.
    """
    x, seen = inputs[0]
    if broken := next((p for _, p in inputs if p.mixed), None):
        return broken
    seen = replace(seen, pad=(0, 0, 0, 0)) if name not in ("convolution", *_POOLS) else seen
    if pointwise or name.rstrip("_") in _PASS:
        if name == "cat" and seen.dims and _from_end(args, 1, x) in seen.dims:
            return replace(seen, mixed="cat of positions")
        joined = _joined(name, inputs, output)
        return replace(joined, gated=True) if name == "native_group_norm" else joined
    rule = _RULES.get(name)
    after = rule(seen, x, args, output) if rule else None
    return replace(seen, mixed=name) if after is None else after


def _joined(name: str, inputs: Sequence[tuple[Tensor, Positions]], output: Tensor) -> Positions:
    """Return the positions of an operation over values at the same position."""
    largest = max((p.sides for _, p in inputs if p.dims), default=(1, 1))
    local = [p for _, p in inputs if p.dims is not None and p.sides == largest]
    vectors = [p for _, p in inputs if p.dims is None or p.sides == (1, 1) != largest]
    if len(local) + len(vectors) < len(inputs):
        return replace(inputs[0][1], mixed=f"{name} of maps of more sizes")
    if not local:
        fields = (vectors[0].fields[0], vectors[0].fields[1])
        for other in vectors[1:]:
            fields = (fields[0].joined(other.fields[0]), fields[1].joined(other.fields[1]))
        return Positions(None, (1, 1), fields, any(p.gated for p in vectors))
    result = replace(local[0], pad=(0, 0, 0, 0))
    for other in local[1:]:
        if other.dims != result.dims or any(
            a.stride != b.stride for a, b in zip(result.fields, other.fields)
        ):
            return replace(result, mixed=f"{name} of maps that are not aligned")
        rows, columns = (a.joined(b) for a, b in zip(result.fields, other.fields))
        result = replace(result, fields=(rows, columns), gated=result.gated or other.gated)
    return replace(result, gated=True) if vectors else result


def _from_end(args: Sequence[Any], index: int, x: Tensor, default: int = 0) -> int:
    dim = int(args[index]) if len(args) > index else default
    return dim - x.ndim if dim >= 0 else dim


def _windowed(seen: Positions, windows: Sequence[Window], output: Tensor) -> Positions:
    if seen.dims is None:
        return seen
    fields = (seen.fields[0].through(windows[0]), seen.fields[1].through(windows[1]))
    return replace(
        seen, dims=(-2, -1), sides=(output.shape[-2], output.shape[-1]), fields=fields, pad=(0, 0, 0, 0)
    )


def _pair(value: Sequence[int]) -> tuple[int, int]:
    return (int(value[0]), int(value[-1]))


def _convolution(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    weight, stride, padding, dilation, transposed = args[1], *(args[3:7])
    if seen.dims is None:
        return seen
    if output.ndim != 4 or seen.dims != (-2, -1):
        return None  # one-dimensional convolutions over channels or tokens
    kernel, stride, padding, dilation = map(_pair, (weight.shape[-2:], stride, padding, dilation))
    if not transposed:
        windows = [Window(*values) for values in zip(kernel, stride, padding, dilation)]
        return _windowed(seen, windows, output)
    fields = []
    for field, k, s, p, d in zip(seen.fields, kernel, stride, padding, dilation):
        # Output j takes inputs i with j + p = i * s + t, t from 0 to d * (k - 1): a bound of what it sees.
        reach = d * (k - 1) / s
        begin = field.start + field.stride * (p / s - reach)
        fields.append(Field(field.size + field.stride * reach, field.stride / s, begin))
    return replace(seen, sides=(output.shape[-2], output.shape[-1]), fields=(fields[0], fields[1]))


def _pool(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    kernel = _pair(args[1])
    stride = _pair(args[2]) if len(args) > 2 and args[2] else kernel
    padding = _pair(args[3]) if len(args) > 3 else (0, 0)
    dilated = len(args) > 4 and isinstance(args[4], list | tuple)
    dilation = _pair(args[4]) if dilated else (1, 1)
    if seen.dims not in (None, (-2, -1)):
        return None
    return _windowed(seen, [Window(*v) for v in zip(kernel, stride, padding, dilation)], output)


def _adaptive(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    if seen.dims is None:
        return seen
    fields = []
    for field, before, after in zip(seen.fields, x.shape[-2:], output.shape[-2:]):
        if before % after == 0:
            fields.append(field.through(Window(before // after, before // after)))
        else:  # windows of two sizes: a bound
            size = field.size + (math.ceil(before / after) + 1) * field.stride
            fields.append(Field(size, field.stride * before / after, field.start - field.stride))
    return replace(seen, sides=_pair(output.shape[-2:]), fields=(fields[0], fields[1]))


def _resize(operation: str) -> Rule:
    def rule(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
        if seen.dims is None:
            return seen
        scales, align_corners = scales_of(args)
        fields = [
            resized_field(field, before, after, operation=operation, align_corners=align_corners, scale=scale)
            for field, before, after, scale in zip(
                seen.fields, x.shape[-2:], output.shape[-2:], scales or (0.0, 0.0)
            )
        ]
        return replace(seen, sides=_pair(output.shape[-2:]), fields=(fields[0], fields[1]))

    return rule


def _pad(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    widths = [int(value) for value in args[1]]
    fields = dict(zip(seen.dims or (), seen.fields))
    for idx in range(len(widths) // 2):
        dim, before = -1 - idx, widths[2 * idx]
        if dim in fields and fields[dim].stride:
            fields[dim] = replace(fields[dim], start=fields[dim].start - before * fields[dim].stride)
    if seen.dims is None:
        return seen
    if seen.dims[0] == seen.dims[1]:
        return None
    left, right, top, bottom = [*widths, 0, 0, 0, 0][:4] if seen.dims == (-2, -1) else (0, 0, 0, 0)
    sides = (output.shape[seen.dims[0]], output.shape[seen.dims[1]])
    both = (fields[seen.dims[0]], fields[seen.dims[1]])
    return replace(seen, fields=both, sides=sides, pad=(left, right, top, bottom))


def _reduce(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    given = next((a for a in args[1:3] if isinstance(a, list | tuple)), None)
    if given is None and len(args) > 1 and isinstance(args[1], int) and not isinstance(args[1], bool):
        given = [args[1]]
    reduced = {d - x.ndim if d >= 0 else d for d in given} if given else set(range(-x.ndim, 0))
    if seen.dims is None:
        return seen
    if set(seen.dims) <= reduced:
        return seen.all()
    if set(seen.dims) & reduced:
        return None  # a mean over rows or columns alone
    if output.ndim == x.ndim:
        return seen
    return replace(seen, dims=_shifted(seen.dims, reduced))


def _shifted(dims: tuple[int, int], removed: set[int]) -> tuple[int, int]:
    return (dims[0] + sum(r > dims[0] for r in removed), dims[1] + sum(r > dims[1] for r in removed))


def _permute(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    order = [d - x.ndim if d >= 0 else d for d in args[1]]
    if seen.dims is None:
        return seen
    return replace(seen, dims=(order.index(seen.dims[0]) - x.ndim, order.index(seen.dims[1]) - x.ndim))


def _transpose(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    first, second = (_from_end(args, 1, x), _from_end(args, 2, x)) if len(args) > 2 else (-2, -1)
    order = list(range(-x.ndim, 0))
    order[first], order[second] = order[second], order[first]
    return _permute(seen, x, (x, order), output)


def _view(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    """Follow rows and columns through a view: products of sizes that agree from the left."""
    if seen.dims is None:
        return seen
    if math.prod(seen.sides) == 1:
        return replace(seen, dims=None)
    old = [(size, dim - x.ndim) for dim, size in enumerate(x.shape) if size > 1]
    new = [(size, dim - output.ndim) for dim, size in enumerate(output.shape) if size > 1]
    if any(side == 1 for side in seen.sides):
        return None
    while old and new:
        left, right = [old.pop(0)], [new.pop(0)]
        while (a := math.prod(s for s, _ in left)) != (b := math.prod(s for s, _ in right)):
            (left if a < b else right).append((old if a < b else new).pop(0))
        inside = {dim for _, dim in left} & set(seen.dims)
        if not inside:
            continue
        if {dim for _, dim in left} - set(seen.dims):
            return seen.all() if inside == set(seen.dims) and len(right) == 1 else None
        seen = _regrouped(seen, [dim for _, dim in left], right)
        if seen.mixed:
            return None
    return _unmark(seen)


def _regrouped(seen: Positions, left: list[int], right: list[tuple[int, int]]) -> Positions:
    """Set the dimensions of one group of a view; new ones are marked by 100 until all groups are done."""
    dims = list(seen.dims or ())
    sizes = [size for size, _ in right]
    sides = [seen.sides[idx] for idx in range(2) if dims[idx] in left]
    if len(sides) == 2 and sizes == [math.prod(sides)]:
        dims = [right[0][1] + 100] * 2
    elif sizes == sides:
        names = iter(right)
        dims = [next(names)[1] + 100 if dim in left else dim for dim in dims]
    else:
        return replace(seen, mixed="view")
    return replace(seen, dims=(dims[0], dims[1]))


def _unmark(seen: Positions) -> Positions:
    dims = tuple(dim - 100 if dim > 0 else dim for dim in seen.dims or ())
    return replace(seen, dims=(dims[0], dims[1]))


def _expand(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    if seen.dims and any(output.shape[d] != x.shape[d] for d in seen.dims):
        return None
    return seen


def _squeeze(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    if seen.dims is None or math.prod(seen.sides) == 1:
        return replace(seen, dims=None)
    given = args[1] if len(args) > 1 else [d for d in range(x.ndim) if x.shape[d] == 1]
    dims = [given] if isinstance(given, int) else list(given)
    removed = {d - x.ndim if d >= 0 else d for d in dims}
    removed = {d for d in removed if x.shape[d] == 1}
    return None if removed & set(seen.dims) else replace(seen, dims=_shifted(seen.dims, removed))


def _unsqueeze(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    if seen.dims is None:
        return seen
    added = _from_end(args, 1, output)
    return replace(seen, dims=tuple(d if d > added else d - 1 for d in seen.dims))  # type: ignore[arg-type]


def _slice(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    dim = _from_end(args, 1, x)
    if seen.dims is None or dim not in seen.dims or output.shape == x.shape:
        return seen
    if seen.dims[0] == seen.dims[1]:
        return None
    start, step = int(args[2] or 0) if len(args) > 2 else 0, int(args[4]) if len(args) > 4 else 1
    start = start + x.shape[dim] if start < 0 else start
    fields = [
        Field(f.size, f.stride * step, f.start + start * f.stride) if d == dim else f
        for d, f in zip(seen.dims, seen.fields)
    ]
    sides = tuple(output.shape[d] for d in seen.dims)
    return replace(seen, fields=(fields[0], fields[1]), sides=(sides[0], sides[1]))


def _split(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    dim = _from_end(args, 2, x, default=-x.ndim)
    return None if seen.dims and dim in seen.dims else seen


def _select(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    dim = _from_end(args, 1, x, default=-x.ndim)
    if seen.dims is None:
        return seen
    return None if dim in seen.dims else replace(seen, dims=_shifted(seen.dims, {dim}))


def _strided(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    """Follow a change of layout, as torch's pooling to one position makes."""
    return seen if seen.dims is None or x.shape == output.shape else None


def _flip(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    dims = {d - x.ndim if d >= 0 else d for d in args[-1]}
    return None if seen.dims and dims & set(seen.dims) else seen


def _product(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    """Follow a linear layer: rows are positions, and the last dimension is summed over."""
    if seen.dims is None:
        return seen
    return None if -1 in seen.dims or args[-1] is x else seen


def _layer_norm(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    over = range(-len(args[1]), 0)
    return replace(seen, gated=True) if seen.dims and set(seen.dims) & set(over) else seen


def _softmax(seen: Positions, x: Tensor, args: Sequence[Any], output: Tensor) -> Positions | None:
    return None if seen.dims and _from_end(args, 1, x) in seen.dims else seen


_RULES: dict[str, Rule] = {
    "convolution": _convolution, "permute": _permute, "transpose": _transpose, "t": _transpose, "view": _view,
    "_unsafe_view": _view, "reshape": _view, "expand": _expand, "squeeze": _squeeze, "unsqueeze": _unsqueeze,
    "slice": _slice, "split": _split, "split_with_sizes": _split, "chunk": _split, "unbind": _select,
    "select": _select, "roll": _flip, "flip": _flip, "mm": _product, "native_layer_norm": _layer_norm,
    "_softmax": _softmax, "softmax": _softmax,
    **dict.fromkeys(_REDUCE, _reduce), **dict.fromkeys(_POOLS, _pool), **dict.fromkeys(_ADAPTIVE, _adaptive),
    **dict.fromkeys(_PADS, _pad),
    **{name: _resize(name) for name in RESIZES}, "addmm": _product, "as_strided_": _strided,
}  # fmt: skip
