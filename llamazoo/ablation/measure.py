"""What is measured of a trained model beside its loss: longer texts, speed of decoding, peak memory."""

import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from llamazoo.ablation.outcomes import at_length
from llamazoo.ablation.results import Outcome
from llamazoo.build import build_model
from llamazoo.data.example import DataSet
from llamazoo.decoder import Decoder
from llamazoo.errors import SpecError
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import load_spec
from llamazoo.training.evaluate import evaluate
from llamazoo.training.recipe import Recipe

__all__ = ["Memory", "decode_tokens_per_second", "losses_at", "reaches", "reaching_to"]

STEPS = 48  # of decoding that are timed
RESET_PEAK = "5"  # what /proc/self/clear_refs takes to forget the peak; see proc(5)


def losses_at(model: Decoder, data: DataSet, recipe: Recipe, lengths: Sequence[int]) -> dict[Outcome, float | None]:
    """The validation loss at multiples of the trained length.

    None where the parts cannot be built for that length with these weights, and where the loss is not finite.
    """
    found: dict[Outcome, float | None] = {}
    for length in lengths:
        if length == 1:
            continue  # that is the loss itself
        tokens = length * recipe.seq_len
        reaching = reaching_to(model, tokens)
        rows = max(1, (recipe.micro_batch_tokens or recipe.batch_tokens) // tokens)
        budget = max(tokens, recipe.evaluate_tokens)
        score = None if reaching is None else evaluate(reaching, data.validation(tokens), rows=rows, tokens=budget)
        found[at_length(length)] = score.loss if score is not None and math.isfinite(score.loss) else None
    return found


def reaches(spec: ArchitectureSpec, tokens: int) -> bool:
    """Whether the weights of a spec are also those of one with a context of so many tokens."""
    return tokens <= spec.max_seq_len or _stretched(spec, tokens) is not None


def _stretched(spec: ArchitectureSpec, tokens: int) -> ArchitectureSpec | None:
    """The spec with a longer context, if that changes no weight's shape (as a table of learned positions would)."""
    try:
        longer = load_spec(spec, {"max_seq_len": tokens}, registry=spec.registry)
    except SpecError:
        return None
    ours, theirs = ({name: p.shape for name, p in build_model(each, device="meta").named_parameters()} for each in (spec, longer))
    return longer if ours == theirs else None


@torch.no_grad()
def reaching_to(model: Decoder, tokens: int) -> Decoder | None:
    """The same weights in a model of a longer context, or None if other weights would be needed (a table of learned positions)."""
    if tokens <= model.spec.max_seq_len:
        return model
    stretched = _stretched(model.spec, tokens)
    if stretched is None:
        return None
    ours = dict(model.named_parameters())
    longer = build_model(stretched, device=model.device, dtype=model.dtype)
    for name, parameter in longer.named_parameters():
        parameter.copy_(ours[name])
    return longer.eval()


@torch.no_grad()
def decode_tokens_per_second(model: Decoder, context: int) -> float:
    """Tokens that one row is continued by in a second, behind half a context; the median step."""
    prompt = max(1, context // 2)
    steps = min(STEPS, context - prompt)
    if steps < 1:
        prompt, steps = context, 0
    state = model.new_state(1, context)
    tokens = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    model.advance(tokens.expand(1, prompt).contiguous(), state, last_only=True)
    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        model.advance(tokens, state, last_only=True)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds.append(time.perf_counter() - begun)
    return 1 / statistics.median(seconds) if seconds else 0.0


class Memory:
    """The most memory that was held since this was made: of the device, or of this process."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.known = device, True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self.known = sys.platform == "linux" and self._forget()

    @staticmethod
    def _forget() -> bool:
        try:
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        except OSError:  # not allowed in some containers
            return False
        return True

    def peak(self) -> int | None:
        """Bytes; None where the machine does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if not self.known:
            return None
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
