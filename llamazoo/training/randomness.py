"""The random states of a process as tensors: PyTorch's, Python's and numpy's, all that a part may draw from without asking."""

import math
import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

__all__ = ["random_states", "set_random_states"]


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the processor's generators, and of the GPU's if the device is one."""
    found = {"random:cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["random:cuda"] = torch.cuda.get_rng_state(device)
    _, words, spare = random.getstate()
    found["random:python"] = torch.tensor(words)
    found["random:python:spare"] = torch.tensor(math.nan if spare is None else spare, dtype=torch.float64)
    _, key, at, has_spare, other = np.random.get_state(legacy=True)
    found["random:numpy"] = torch.tensor([*map(int, key), at, has_spare])
    found["random:numpy:spare"] = torch.tensor(other, dtype=torch.float64)
    return found


def set_random_states(held: Mapping[str, Tensor], device: torch.device) -> None:
    """Go on from states that `random_states` found. Raises ValueError for what is none."""
    try:
        torch.set_rng_state(held["random:cpu"])
        if "random:cuda" in held:
            torch.cuda.set_rng_state(held["random:cuda"], device)
        spare = float(held["random:python:spare"])
        random.setstate((3, tuple(held["random:python"].tolist()), None if math.isnan(spare) else spare))
        *key, at, has_spare = held["random:numpy"].tolist()
        spared = float(held["random:numpy:spare"])
        state = {"key": np.array(key, dtype=np.uint32), "pos": at}
        np.random.set_state({"bit_generator": "MT19937", "state": state, "has_gauss": has_spare, "gauss": spared})
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(str(error).splitlines()[0]) from None
