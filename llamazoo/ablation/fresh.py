"""The model that a run begins with, equal in whichever process it is built, whatever a program has set there."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from llamazoo.ablation.plan import Job
from llamazoo.build import build_model
from llamazoo.decoder import Decoder
from llamazoo.registry import Registry
from llamazoo.spec.compose import load_spec
from llamazoo.training.fit import training_dtype
from llamazoo.training.pinned import as_it_was

__all__ = ["as_usual", "fresh_model"]


def fresh_model(job: Job, registry: Registry | None = None) -> Decoder:
    """The model of a job on its device: in the dtype of its spec if models are trained in that, else in float32."""
    spec = load_spec(job.spec, registry=registry)
    return build_model(spec, device=job.device, dtype=training_dtype(spec) if spec.dtype else torch.float32, registry=registry)


@contextmanager
def as_usual() -> Iterator[None]:
    """PyTorch's default dtype and device as they are at first, and afterwards all as it was: no key of a run tells of others.

    Gradients are on in it; what a part sets for the whole process, the next run does not find.
    """
    before, elsewhere = torch.get_default_dtype(), torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with as_it_was(), torch.enable_grad(), torch.device("cpu") if elsewhere else nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)
