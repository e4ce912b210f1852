"""What a model must not see: later tokens, other rows, other documents. One that does wins any comparison, and for nothing.

b batch, t tokens.
"""

import torch
from torch import Tensor

from llamazoo.ablation.fresh import as_usual, fresh_model
from llamazoo.ablation.plan import Job
from llamazoo.decoder import Decoder
from llamazoo.device import devices
from llamazoo.registry import Registry
from llamazoo.training.pinned import pinned

__all__ = ["sees_too_much"]

ENOUGH = 64  # tokens of the text that is looked at
NUDGE = 0.02  # what is added to parameters, in standard deviations: one that begins as nought would hide what it does later
TOLERANCE = 1e-3  # of the largest logit; what is seen moves logits by far more, and rounding by far less


def sees_too_much(job: Job, registry: Registry | None = None) -> str | None:
    """What the model of a job sees that it must not, or None; found by changing that, with the weights that the job begins with.

    An error, be it of a stranger's part, carries a note that says in which model it came.
    """
    try:
        return _found(job, registry)
    except Exception as error:
        error.add_note(f"in the model of {job.variant!r}, before it is trained")
        raise


def _found(job: Job, registry: Registry | None) -> str | None:
    here = job if job.device in devices() else job.model_copy(update={"device": "cpu"})  # Ray's machines may have what this one lacks
    with as_usual(), pinned(here.recipe, torch.device(here.device), 0), torch.no_grad():
        model = fresh_model(here, registry).eval()
        draw = torch.Generator().manual_seed(0)
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=draw).to(p), alpha=NUDGE)
        size = min(ENOUGH, job.recipe.seq_len)
        tokens = torch.randint(model.spec.vocab_size, (2, size), generator=draw).to(model.device)
        return _seen(model, tokens, (tokens + 1) % model.spec.vocab_size)


def _seen(model: Decoder, tokens: Tensor, others: Tensor) -> str | None:
    half = tokens.shape[1] // 2
    before = model(tokens)
    later = torch.cat((tokens[:, :half], others[:, half:]), 1)
    if _moved(model(later)[:, :half], before[:, :half]):
        return "tokens that come later change what it gives for earlier ones"
    if _moved(model(torch.cat((tokens[:1], others[1:])))[:1], before[:1]):
        return "what stands in another row of the batch changes what it gives"
    segments = (torch.arange(tokens.shape[1], device=tokens.device) >= half).long().expand_as(tokens)
    apart = model(tokens, segments=segments)
    if _moved(model(torch.cat((others[:, :half], tokens[:, half:]), 1), segments=segments)[:, half:], apart[:, half:]):
        return "another document that is packed into the same row changes what it gives"
    return None


def _moved(now: Tensor, then: Tensor) -> bool:
    """Whether logits differ by more than rounding. What is not finite is left to training, which says so."""
    distance = (now - then).abs().amax()
    return bool(distance > TOLERANCE * then.abs().amax())
