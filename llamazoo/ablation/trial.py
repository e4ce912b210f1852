"""All that is done with a model besides training it, tried once before anything is trained: what fails there would fail after hours."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from llamazoo.ablation.fresh import as_usual, fresh_model
from llamazoo.ablation.isolation import sees_too_much
from llamazoo.ablation.measure import reaching_to
from llamazoo.ablation.plan import Job
from llamazoo.decoder import Decoder
from llamazoo.device import devices
from llamazoo.discovery import told
from llamazoo.registry import Registry
from llamazoo.training.pinned import pinned
from llamazoo.training.stopping import staying

__all__ = ["Trial", "tried"]

NUDGE = 0.02  # what is added to parameters, in standard deviations: one that begins as nought would hide what it does later


class Trial(NamedTuple):
    """What came of it."""

    sees: str | None
    """What the model sees that it must not, or None."""
    too_long: dict[int, str]
    """Multiples of the trained length at which it fails, of those that nobody needs, and how."""


def tried(jobs: Sequence[Job], registry: Registry | None = None, needed: Collection[int] = ()) -> Trial:
    """The model of some jobs, which differ in data and lengths alone, in evaluation, in decoding, and at longer texts.

    What it must not see is looked at, too; with the weights that the first job begins with, a little off. An error, be it of a
    stranger's part, carries a note that says in which model it came, and in what; one at a length that is not `needed` is told only.
    """
    job = jobs[0]
    here = job if job.device in devices() else job.model_copy(update={"device": "cpu"})  # Ray's machines may have what this one lacks
    with as_usual(), pinned(here.recipe, torch.device(here.device), 0), torch.no_grad():
        with _noted(job):
            model = fresh_model(here, registry).eval()
        draw = torch.Generator().manual_seed(0)
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=draw).to(p), alpha=NUDGE)
        seq_lens = sorted({each.recipe.seq_len for each in jobs})
        for tokens in seq_lens:
            with _noted(job):
                _read(model, tokens)
            with _noted(job, "in decoding, one token after the other, "):
                _decode(model, tokens)
        with _noted(job):
            sees = sees_too_much(model, seq_lens[-1])
        too_long = {}
        for length in sorted({length for each in jobs for length in each.lengths if length > 1}):
            tokens = length * job.recipe.seq_len
            try:
                with _noted(job, f"at {tokens} tokens, {length} times the trained length, "):
                    _read(model, tokens)
            except Exception as error:
                if length in needed:
                    raise
                too_long[length] = told(error)
    return Trial(sees, too_long)


@contextmanager
def _noted(job: Job, doing: str = "") -> Iterator[None]:
    try:
        with staying():
            yield
    except Exception as error:
        error.add_note(f"{doing}in the model of {job.variant!r}, before it is trained")
        raise


def _read(model: Decoder, tokens: int) -> None:
    """A text of so many tokens, if the model can be built for it."""
    reaching = reaching_to(model, tokens)
    if reaching is not None:
        reaching(_tokens(reaching, tokens))


def _decode(model: Decoder, context: int) -> None:
    """The steps that are timed after training: a prompt at once, then one token."""
    prompt = max(1, context // 2)
    state = model.new_state(1, context)
    model.advance(_tokens(model, prompt), state, last_only=True)
    if prompt < context:
        model.advance(_tokens(model, 1), state, last_only=True)


def _tokens(model: Decoder, count: int) -> torch.Tensor:
    return (torch.arange(count, device=model.device) % model.spec.vocab_size)[None]
