"""The devices of this machine."""

import torch

from llamazoo.errors import UnsupportedError
from llamazoo.registry import nearest

__all__ = ["device_named", "devices"]


def devices() -> list[str]:
    """What --device may name here."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *(["cuda", *cuda] if cuda else []), *(["mps"] if torch.backends.mps.is_available() else [])]


def device_named(name: str | None) -> torch.device | None:
    """The device of this name; UnsupportedError if this machine has none such. None stays None."""
    if name is None:
        return None
    if name not in devices():
        raise UnsupportedError(f"there is no device {name!r} here; {nearest(name, devices())}there are: {', '.join(devices())}")
    return torch.device(name)
