"""Products of rows with one of many matrices, each with its own: what a mixture of experts is computed with.

m rows, sorted by the matrix that they are multiplied by; n matrices; i features that go in, o features that come out. Row r
belongs to the first matrix whose end is above r. Only matrices that have rows are read, so a step that decodes costs the same
however many there are.

The products are operators of their own, opaque to the compiler: what happens inside depends on how many rows each matrix has,
which a graph must not. On the CPU that is a loop over those that have some. On CUDA, in bfloat16, it is PyTorch's grouped
product, and nothing waits for the device; in other number types, or for widths that are no whole 16 bytes, it is the loop, for
which the host has to learn the ends: it waits for the device once a product.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llamazoo.contract.spare import Spare

__all__ = ["grouped_ends", "grouped_linear"]

ALIGNED = 16  # bytes, of which every row that PyTorch's grouped product reads has to be a whole number


def grouped_ends(groups: Tensor, count: int) -> Tensor:
    """Where the rows of each of `count` groups end, given the sorted group of each row [m]. -> [n] int64"""
    return torch.searchsorted(groups, torch.arange(count, device=groups.device), right=True)


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor, spare: Spare | None = None) -> Tensor:
    """Each row of x [m i] times the transpose of its group's matrix, of `weight` [n o i]; groups end at `ends` [n]. -> [m o]

    Every matrix lies as a linear layer's weight does, so neither the product nor its gradients copy it. The gradient of `weight`
    is written once, into one tensor, rather than added up from one full-sized tensor per matrix; `spare` may lend the memory.
    """
    y: Tensor
    if torch.compiler.is_compiling():
        y = _linear(x, weight, ends)
    elif torch.is_grad_enabled():
        y = _Linear.apply(x, weight, ends, spare)  # type: ignore[no-untyped-call]
    else:
        y = _product(x, weight, ends)  # the same without the overhead of either, which a decoding step would feel
    return y


def _product(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    if _has_kernel(x, weight):
        return F.grouped_mm(x, weight.transpose(1, 2), offs=ends.int())
    y = x.new_empty(len(x), weight.shape[1])
    for group, begin, end in _filled(ends):
        torch.mm(x[begin:end], weight[group].t(), out=y[begin:end])
    return y


def _outer_product(y: Tensor, x: Tensor, ends: Tensor, spare: Spare | None = None) -> Tensor:
    if _has_kernel(y, x):
        return F.grouped_mm(y.t(), x, offs=ends.int())
    shape = len(ends), y.shape[1], x.shape[1]
    result = x.new_empty(shape) if spare is None else spare.empty(shape, x)
    empty = set(range(len(ends)))
    for group, begin, end in _filled(ends):
        torch.mm(y[begin:end].t(), x[begin:end], out=result[group])
        empty.remove(group)
    for group in empty:
        result[group].zero_()
    return result


def _filled(ends: Tensor) -> Iterator[tuple[int, int, int]]:
    """The groups that have rows: which, from where, to where."""
    begin = 0
    for group, end in enumerate(ends.tolist()):
        if end > begin:
            yield group, begin, end
            begin = end


def _has_kernel(*operands: Tensor) -> bool:
    """Whether PyTorch's grouped product takes these without a loop of its own on the host."""
    return all(x.is_cuda and x.dtype == torch.bfloat16 for x in operands) and all(
        width * x.itemsize % ALIGNED == 0 for x in operands for width in (x.shape[1:] if x.ndim == 3 else x.shape[-1:])
    )


@torch.library.custom_op("llamazoo::grouped_linear", mutates_args=())
def _linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return _product(x, weight, ends)


@torch.library.custom_op("llamazoo::grouped_outer", mutates_args=())
def _outer(y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    """For each group, the sum over its rows of y [m o] times x [m i]. -> [n o i]"""
    return _outer_product(y, x, ends)


@_linear.register_fake
def _(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@_outer.register_fake
def _(y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(ends.shape[0], y.shape[1], x.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _linear_backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight, ends = ctx.saved_tensors
    slope = slope.contiguous()
    of_x = _linear(slope, weight.transpose(1, 2), ends) if ctx.needs_input_grad[0] else None
    of_weight = _outer(slope, x, ends) if ctx.needs_input_grad[1] else None
    return of_x, of_weight, None


def _outer_backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    y, x, ends = ctx.saved_tensors
    of_y = _linear(x, slope, ends) if ctx.needs_input_grad[0] else None
    of_x = _linear(y, slope.transpose(1, 2), ends) if ctx.needs_input_grad[1] else None
    return of_y, of_x, None


class _Linear(torch.autograd.Function):
    """The operator as eager mode calls it: its gradient may be written to memory that is lent, which an operator cannot be given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, ends: Tensor, spare: Spare | None) -> Tensor:
        ctx.save_for_backward(x, weight, ends)
        ctx.spare = spare
        return _product(x, weight, ends)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, ends = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient shall have one too
            return *_linear_backward(ctx, slope), None
        slope = slope.contiguous()
        of_x = _product(slope, weight.transpose(1, 2), ends) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_x, None, None, None
        first = weight.is_leaf and weight.grad is None  # what is added to a gradient that is there is needed for a moment only
        return of_x, _outer_product(slope, x, ends, ctx.spare if first else None), None, None


_linear.register_autograd(_linear_backward, setup_context=_keep)
_outer.register_autograd(_outer_backward, setup_context=_keep)
