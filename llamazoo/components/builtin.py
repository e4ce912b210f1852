"""llamazoo's own plugin: all built-in parts, entering by the door that is open to everybody."""

from collections.abc import Iterable
from pathlib import Path

from llamazoo.components import activation, block, embedding, experts, feed_forward, head, norm, router
from llamazoo.components.attention import kernels, latent, multihead
from llamazoo.components.position import absolute, bias, rope
from llamazoo.contract.component import Component
from llamazoo.generation.json_tokenizer import JsonTokenizer
from llamazoo.generation.ranks import Llama3Ranks, QwenRanks
from llamazoo.generation.tokenizer import FileTokenizer, SentencePieceTokenizer
from llamazoo.hooks import hookimpl
from llamazoo.weights.checkpoint import Format
from llamazoo.weights.formats import meta, native
from llamazoo.weights.formats.hf.format import HuggingFace

__all__ = ["llamazoo_components", "llamazoo_formats", "llamazoo_tokenizers", "llamazoo_zoo"]


@hookimpl
def llamazoo_components() -> Iterable[type[Component]]:
    return [
        *(norm.RMSNorm, norm.LayerNorm, norm.NoNorm),
        *(activation.SiLU, activation.Swish, activation.GELU, activation.ReLU, activation.SquaredReLU, activation.Sigmoid),
        activation.Identity,
        *(feed_forward.GatedFeedForward, feed_forward.MLP, experts.Experts),
        *(router.TopK, router.Grouped),
        *(rope.RoPE, absolute.Learned, absolute.Sinusoidal, absolute.NoPosition, bias.ALiBi, bias.T5),
        *(kernels.Eager, kernels.SDPA, kernels.Auto),
        *(multihead.Multihead, latent.Latent),
        *(block.PreNorm, block.PostNorm, block.Sandwich, block.Reordered, block.Parallel),
        embedding.Table,
        head.LinearHead,
    ]


@hookimpl
def llamazoo_tokenizers() -> Iterable[type[FileTokenizer]]:
    return [JsonTokenizer, SentencePieceTokenizer, Llama3Ranks, QwenRanks]


@hookimpl
def llamazoo_zoo() -> Iterable[Path]:
    return [Path(__file__).parents[1] / "zoo"]


@hookimpl
def llamazoo_formats() -> Iterable[type[Format]]:
    return [native.Native, HuggingFace, meta.Meta]
