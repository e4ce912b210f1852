"""Saves a checkpoint in fifty processes, each killed in the middle of it, and tells what each leaves behind."""

import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from llamazoo.training.checkpoint import load_progress, newest, restore, save_checkpoint, sweep
from llamazoo.training.identity import Identity
from llamazoo.training.progress import Progress

ONE = Identity(settings="one", values="", code={})
PLACES = 50
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.mkdir", "shutil.rmtree")


def model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layer = nn.Linear(40, 40)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 40)).sum().backward()
    optimizer.step()
    return layer, optimizer


def save(folder: Path, step: int, layer: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        layer.weight.fill_(step)
    save_checkpoint(folder, Progress(identity=ONE, step=step), layer, optimizer)


def kill_at_byte(number: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def calls(folder: Path, layer: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """How many calls a save makes that open, rename or remove something."""
    child = os.fork()
    if child == 0:
        seen: list[str] = []
        sys.addaudithook(lambda event, arguments: seen.append(event) if event in EVENTS else None)
        save(folder, 4, layer, optimizer)
        os._exit(len(seen))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_call(number: int) -> None:
    left = [number]

    def count(event: str, arguments: object) -> None:
        if event in EVENTS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def main(root: Path) -> None:
    torch.set_num_threads(1)
    layer, optimizer = model()
    whole = root / "whole"
    for step in (1, 2, 3):
        save(whole, step, layer, optimizer)
    size = (whole / "step-000000003" / "tensors.safetensors").stat().st_size
    shutil.copytree(whole, root / "counted")
    places = [(kill_at_call, i + 1) for i in range(calls(root / "counted", layer, optimizer))]
    left = PLACES - len(places)
    places += [(kill_at_byte, round(size * (i + 0.5) / left)) for i in range(left)]
    steps, killed = [], 0
    for number, (kill, where) in enumerate(places):
        folder = root / f"run-{number}"
        shutil.copytree(whole, folder)
        child = os.fork()
        if child == 0:
            kill(where)
            save(folder, 4, layer, optimizer)
            os._exit(0)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        sweep(folder)
        place = newest(folder)
        found, fresh = model()
        restore(place, found, fresh)
        steps.append(load_progress(place, ONE, 9).step)
        assert bool((found.weight == steps[-1]).all()), "the weights are of another step"
        assert fresh.state[found.weight]["step"] == 1
        save(folder, steps[-1] + 1, found, fresh)  # and the run goes on
    print(json.dumps({"steps": steps, "killed": killed}))


main(Path(sys.argv[1]))
