"""Checks of gradients, against differences of the loss in float64."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from llamazoo.decoder import Decoder
from llamazoo.testing.check import Finding, check
from llamazoo.testing.tiny import Subject

__all__ = ["gradients"]

STEPS = (1e-5, 1e-6, 1e-7)  # a kink or a jump that lies within one step is seldom within all
TOLERANCE = 1e-5  # of the slope; differences of these steps are good to 1e-8
ROWS, LENGTH = 6, 16


@check(
    "a detach(), a no_grad(), .data or an integer in between; float32 in a float64 model; or a backward() written by hand that is wrong",
    gradients=True,
)
def gradients(of: Subject) -> Iterator[Finding]:
    """The loss has finite gradients, which reach every parameter and equal the loss's own differences."""
    model, tokens = of.model(), of.tokens(ROWS, LENGTH)
    model.loss(tokens).backward()
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    slopes: dict[str, Tensor] = {}
    for name, parameter in learned.items():
        slope = parameter.grad
        if slope is None:
            yield _unreached(name, "none", "it is never used, or cut off by a detach() or a no_grad()")
        elif not slope.isfinite().all():
            worst = "NaN" if slope.isnan().any() else "infinity"
            yield Finding(
                f"took the gradient of {name}", "finite numbers", worst, "a root, logarithm or division at 0, or an exp() of much"
            )
        else:
            slopes[name] = slope
    yield from _beyond(of, model)
    with torch.no_grad():
        yield from _differences(of, model, tokens, {name: learned[name] for name in slopes}, slopes)


def _beyond(of: Subject, model: Decoder) -> Iterator[Finding]:
    """No more parameters are said to be for longer texts only than those without a gradient."""
    for path, part in of.instances(model).items():
        own = [p for inside in part.owned_modules() for p in inside.parameters(recurse=False) if p.requires_grad]
        told, without = part.beyond(LENGTH), sum(p.numel() if p.grad is None else int((p.grad == 0).sum()) for p in own)
        if not 0 <= told <= without:
            yield Finding(
                f"asked {path} for beyond({LENGTH}), and took the gradient of a loss on texts of {LENGTH} tokens",
                f"from 0 to {without}, the parameters that no gradient reached",
                str(told),
                "beyond() counts what shorter texts use too: it is of this component alone, and of texts of more than `length` tokens",
            )


def _unreached(name: str, found: str, cause: str) -> Finding:
    return Finding(f"took the gradient of the loss with respect to {name}", "a gradient that reaches it", found, cause)


def _differences(
    of: Subject, model: Decoder, tokens: Tensor, learned: Mapping[str, nn.Parameter], slopes: Mapping[str, Tensor]
) -> Iterator[Finding]:
    """The slope along a random direction of each of the component's own parameters, and along one of all others."""
    generator = torch.Generator().manual_seed(3)
    own = {id(p) for part in of.instances(model).values() for p in part.parameters()}
    groups = [[name] for name in learned if id(learned[name]) in own]
    groups.append([name for name in learned if id(learned[name]) not in own])
    for group in filter(None, groups):
        directions = {name: torch.randn(learned[name].shape, generator=generator, dtype=torch.float64) for name in group}
        slope = sum(float((slopes[name] * directions[name]).sum()) for name in group)
        measured, error = _measured(model, tokens, [(learned[name], directions[name]) for name in group], slope)
        what = group[0] if len(group) == 1 and id(learned[group[0]]) in own else "all parameters outside the component"
        if all(not slopes[name].any() for name in group) and error > TOLERANCE:
            yield _unreached(
                what,
                f"0, though the loss changes by {measured:.3g} for a unit along a random direction",
                "a detach(), a no_grad() or an integer in between",
            )
        elif error > TOLERANCE:
            done = f"changed {what} a little along a random direction"
            yield Finding(done, f"the loss to change as its gradient says, by {slope:.6g} for a unit", f"{measured:.6g}")


def _measured(model: Decoder, tokens: Tensor, along: list[tuple[nn.Parameter, Tensor]], slope: float) -> tuple[float, float]:
    """The slope of the loss along a direction, by the step that agrees best with `slope`, and how far off it is, of its size."""
    found = []
    for step in STEPS:
        ends = []
        for sign in (1, -1):
            for parameter, direction in along:
                parameter.add_(sign * step * direction)
            ends.append(float(model.loss(tokens)))
            for parameter, direction in along:
                parameter.sub_(sign * step * direction)
        measured = (ends[0] - ends[1]) / (2 * step)
        error = abs(measured - slope) / max(1e-3, abs(measured), abs(slope))
        found.append((error if error == error else float("inf"), measured))
        if found[-1][0] <= TOLERANCE:
            break
    error, measured = min(found)
    return measured, error
