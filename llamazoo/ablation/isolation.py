"""What a model must not see: later tokens, other rows, other documents. One that does wins any comparison, and for nothing.

b batch, t tokens.
"""

import torch
from torch import Tensor

from llamazoo.decoder import Decoder

__all__ = ["sees_too_much"]

ENOUGH = 64  # tokens of the text that is looked at
TOLERANCE = 1e-3  # of the largest logit; what is seen moves logits by far more, and rounding by far less


@torch.no_grad()
def sees_too_much(model: Decoder, seq_len: int) -> str | None:
    """What a model sees that it must not, or None; found by changing that, in a text of at most so many tokens."""
    draw = torch.Generator().manual_seed(0)
    size = min(ENOUGH, seq_len)
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
