"""What the tensors of published checkpoints are called: one checkpoint of each Hugging Face model type, names as found in public.

Compact: `{q,k}` stands for each of the words, `{0..31}` for each of the numbers. The names are facts about files that are not
here; `source` says where each list was seen, and how much of it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

__all__ = ["NAMES", "Names", "expanded"]

CHOICE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Names:
    """The names of one checkpoint, and the model of the zoo that it is, with `changes` where it is another size."""

    model_type: str
    checkpoint: str  # its repository on the hub
    source: str  # where the names were found
    zoo: str
    patterns: tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""  # what transformers writes before each name today, where the file has nothing

    def __str__(self) -> str:
        return self.model_type

    def all(self) -> list[str]:
        """Every name, one by one."""
        return list(expanded(self.patterns))


def expanded(patterns: Iterable[str]) -> Iterator[str]:
    """The names that patterns stand for, in their order."""
    for pattern in patterns:
        parts = CHOICE.split(pattern)  # text and choices take turns
        yield from map("".join, product(*(_choices(part) if number % 2 else (part,) for number, part in enumerate(parts))))


def _choices(inner: str) -> list[str]:
    first, dots, last = inner.partition("..")
    return [str(number) for number in range(int(first), int(last) + 1)] if dots else inner.split(",")


def llama_like(n_layers: int, *more: str, head: bool = True) -> tuple[str, ...]:
    """The names that most decoders since Llama have; `more` are of each layer."""
    layer = f"model.layers.{{0..{n_layers - 1}}}"
    names = ["model.{embed_tokens,norm}.weight", f"{layer}.self_attn.{{q,k,v,o}}_proj.weight", f"{layer}.mlp.{{gate,up,down}}_proj.weight"]
    names += [f"{layer}.{{input,post_attention}}_layernorm.weight", *(f"{layer}.{name}" for name in more)]
    return (*names, *(["lm_head.weight"] if head else []))


LLAMA = "model.layers.{0..31}"
NEOX, BLOOM, GPT2, FALCON = "gpt_neox.layers.{0..35}", "h.{0..69}", "h.{0..11}", "transformer.h.{0..31}"
MIXTRAL, MOE, OSS = "model.layers.{0..31}", "model.layers.{0..47}", "model.layers.{0..23}"
LITE, V3 = "model.layers.{0..26}", "model.layers.{0..61}"  # V3: the last is for multi-token prediction

NAMES = [
    Names(
        "llama",
        "lmsys/vicuna-7b-delta-v0",
        "github.com/chengzeyi/vicuna-7b-delta-v0 pytorch_model.bin.index.json; later files have no rotary_emb.inv_freq",
        "llama-7b",
        llama_like(32, "self_attn.rotary_emb.inv_freq"),
    ),
    Names(
        "mistral",
        "mistralai/Mistral-7B-v0.1",
        "github.com/KamilaTrinkenschuh/Minstral-Model pytorch_model.bin.index.json, of a model tuned from it",
        "mistral-7b-v0.1",
        llama_like(32),
    ),
    Names(
        "mixtral",
        "mistralai/Mixtral-8x7B-v0.1",
        "github.com/JakobJohannesson/mixtral_dolphin_v2.5 pytorch_model.bin.index.json, of a model tuned from it",
        "mixtral-8x7b",
        (
            "{model.embed_tokens,model.norm,lm_head}.weight",
            f"{MIXTRAL}.self_attn.{{q,k,v,o}}_proj.weight",
            f"{MIXTRAL}.{{input,post_attention}}_layernorm.weight",
            f"{MIXTRAL}.block_sparse_moe.gate.weight",
            f"{MIXTRAL}.block_sparse_moe.experts.{{0..7}}.w{{1,2,3}}.weight",
        ),
    ),
    Names(
        "qwen2",
        "Qwen/Qwen2.5-1.5B",
        "a public note on the weights of this file, repository not recorded: 338 names, those of four layers one by one",
        "qwen2.5-1.5b",
        llama_like(28, "self_attn.{q,k,v}_proj.bias", head=False),
    ),
    Names(
        "qwen3",
        "Qwen/Qwen3-0.6B",
        "github.com/tesf777/nano-vllm Qwen3-0.6B/Qwen3-0.6B_weights_info.md: all 311 names; lm_head.weight is there, although tied",
        "qwen3-0.6b",
        llama_like(28, "self_attn.{q,k}_norm.weight"),
    ),
    Names(
        "qwen3_moe",
        "Qwen/Qwen3-30B-A3B",
        "a public walk through SGLang lists the first layer of Qwen3-30B-A3B-Instruct-2507 and what follows the last, repository not "
        "recorded",
        "qwen3-30b-a3b",
        (
            "{model.embed_tokens,model.norm,lm_head}.weight",
            f"{MOE}.self_attn.{{q,k,v,o}}_proj.weight",
            f"{MOE}.self_attn.{{q,k}}_norm.weight",
            f"{MOE}.{{input,post_attention}}_layernorm.weight",
            f"{MOE}.mlp.gate.weight",
            f"{MOE}.mlp.experts.{{0..127}}.{{gate,up,down}}_proj.weight",
        ),
    ),
    Names(
        "gemma",
        "google/gemma-2b",
        "github.com/ananddhanabal/gemma model.safetensors.index.json, a copy saved again: lm_head.weight is there, although tied",
        "gemma-2b",
        llama_like(18),
    ),
    Names(
        "gemma2",
        "google/gemma-2-2b",
        "github.com/dleemiller/WordLlama tutorials/extract_token_embeddings.md quotes the head of the index of google/gemma-2-2b-it; "
        "all of them, for any checkpoint of the type: github.com/arcee-ai/mergekit mergekit/_data/architectures/gemma2.json",
        "gemma-2-2b",
        llama_like(26, "{pre,post}_feedforward_layernorm.weight", head=False),
    ),
    Names(
        "gemma3_text",
        "google/gemma-3-270m",
        "a public table of names for a converter of this model (GEMMA3_270M_TENSOR_MAP), repository not recorded; for any checkpoint of "
        "the type: github.com/arcee-ai/mergekit mergekit/_data/architectures/gemma3.json",
        "gemma-3-270m",
        llama_like(18, "{pre,post}_feedforward_layernorm.weight", "self_attn.{q,k}_norm.weight", head=False),
    ),
    Names(
        "phi3",
        "microsoft/Phi-3-mini-4k-instruct",
        "github.com/YouriLalain/3PRYMMAL-PHI3-3B-SLERP model.safetensors.index.json, of models merged from it",
        "phi-3-mini",
        (
            "{model.embed_tokens,model.norm,lm_head}.weight",
            f"{LLAMA}.self_attn.{{qkv,o}}_proj.weight",
            f"{LLAMA}.mlp.{{gate_up,down}}_proj.weight",
            f"{LLAMA}.{{input,post_attention}}_layernorm.weight",
        ),
    ),
    Names(
        "olmo2",
        "allenai/OLMo-2-0425-1B",
        "for any checkpoint of the type: github.com/arcee-ai/mergekit mergekit/_data/architectures/olmo2.json",
        "olmo-2-1b",
        (
            "{model.embed_tokens,model.norm,lm_head}.weight",
            "model.layers.{0..15}.self_attn.{q,k,v,o}_proj.weight",
            "model.layers.{0..15}.self_attn.{q,k}_norm.weight",
            "model.layers.{0..15}.mlp.{gate,up,down}_proj.weight",
            "model.layers.{0..15}.post_{attention,feedforward}_layernorm.weight",
        ),
    ),
    Names(
        "smollm3",
        "HuggingFaceTB/SmolLM3-3B",
        "github.com/zhuyie/smollm3.go tools/export.py takes every tensor of this model by its name, as it is loaded",
        "smollm3-3b",
        llama_like(36, head=False),
    ),
    Names(
        "gpt2",
        "openai-community/gpt2",
        "a public write-up of GPT-2 in tinygrad prints all keys of this pytorch_model.bin, repository not recorded; with masked_bias, "
        "which files written by transformers 2 to 4 hold too",
        "gpt2",
        (
            "w{te,pe}.weight",
            f"{GPT2}.ln_{{1,2}}.{{weight,bias}}",
            f"{GPT2}.attn.c_{{attn,proj}}.{{weight,bias}}",
            f"{GPT2}.mlp.c_{{fc,proj}}.{{weight,bias}}",
            f"{GPT2}.attn.{{bias,masked_bias}}",
            "ln_f.{weight,bias}",
        ),
        prefix="transformer.",
    ),
    Names(
        "gpt_neox",
        "OpenAssistant/oasst-sft-1-pythia-12b",
        "github.com/mickgel/OpenAssistantDemo pytorch_model.bin.index.json",
        "pythia-12b",
        (
            "{gpt_neox.embed_in,embed_out}.weight",
            f"{NEOX}.{{input,post_attention}}_layernorm.{{weight,bias}}",
            f"{NEOX}.attention.{{query_key_value,dense}}.{{weight,bias}}",
            f"{NEOX}.attention.{{bias,masked_bias,rotary_emb.inv_freq}}",
            f"{NEOX}.mlp.dense_{{h_to_4h,4h_to_h}}.{{weight,bias}}",
            "gpt_neox.final_layer_norm.{weight,bias}",
        ),
    ),
    Names(
        "falcon",
        "tiiuae/falcon-7b",
        "github.com/kimborgen/falcon-llm README.md prints all modules of this model as it is loaded; lm_head.weight is there, although "
        "tied, as in the file of the larger model (github.com/Decentralised-AI/falcon-40b pytorch_model.bin.index.json)",
        "falcon-7b",
        (
            "transformer.word_embeddings.weight",
            f"{FALCON}.input_layernorm.{{weight,bias}}",
            f"{FALCON}.self_attention.{{query_key_value,dense}}.weight",
            f"{FALCON}.mlp.dense_{{h_to_4h,4h_to_h}}.weight",
            "transformer.ln_f.{weight,bias}",
            "lm_head.weight",
        ),
    ),
    Names(
        "bloom",
        "bigscience/bloom",
        "github.com/amansingh61/bloom pytorch_model.bin.index.json",
        "bloom-560m",
        (
            "word_embeddings.weight",
            "word_embeddings_layernorm.{weight,bias}",
            f"{BLOOM}.{{input,post_attention}}_layernorm.{{weight,bias}}",
            f"{BLOOM}.self_attention.{{query_key_value,dense}}.{{weight,bias}}",
            f"{BLOOM}.mlp.dense_{{h_to_4h,4h_to_h}}.{{weight,bias}}",
            "ln_f.{weight,bias}",
        ),
        changes={"n_layers": 70},
        prefix="transformer.",
    ),
    Names(
        "mpt",
        "mosaicml/mpt-7b",
        "github.com/mikeybellissimo/LoRA-MPT pytorch_model.bin.index.json",
        "mpt-7b",
        (
            "transformer.{wte,norm_f}.weight",
            "transformer.blocks.{0..31}.norm_{1,2}.weight",
            "transformer.blocks.{0..31}.attn.{Wqkv,out_proj}.weight",
            "transformer.blocks.{0..31}.ffn.{up,down}_proj.weight",
        ),
    ),
    Names(
        "gpt_oss",
        "unsloth/gpt-oss-20b-BF16",
        "a public note on openai/gpt-oss-120b (687 names) and a copy of the index of openai/gpt-oss-20b, which have 4-bit blocks and "
        "scales in place of the two matrices of experts, and a list of the last layer of a bfloat16 checkpoint; repositories not recorded",
        "gpt-oss-20b",
        (
            "{model.embed_tokens,model.norm,lm_head}.weight",
            f"{OSS}.self_attn.{{q,k,v,o}}_proj.{{weight,bias}}",
            f"{OSS}.self_attn.sinks",
            f"{OSS}.mlp.router.{{weight,bias}}",
            f"{OSS}.mlp.experts.{{gate_up,down}}_proj{{,_bias}}",
            f"{OSS}.{{input,post_attention}}_layernorm.weight",
        ),
    ),
    Names(
        "deepseek_v2",
        "deepseek-ai/DeepSeek-V2-Lite",
        "a public write-up that builds DeepSeek-V2-Lite prints the state dict that it loads, repository not recorded",
        "deepseek-v2-lite",
        (
            "{model.embed_tokens,model.norm,lm_head}.weight",
            f"{LITE}.self_attn.{{q_proj,kv_a_proj_with_mqa,kv_a_layernorm,kv_b_proj,o_proj}}.weight",
            f"{LITE}.{{input,post_attention}}_layernorm.weight",
            "model.layers.0.mlp.{gate,up,down}_proj.weight",
            "model.layers.{1..26}.mlp.gate.weight",
            "model.layers.{1..26}.mlp.shared_experts.{gate,up,down}_proj.weight",
            "model.layers.{1..26}.mlp.experts.{0..63}.{gate,up,down}_proj.weight",
        ),
    ),
    Names(
        "deepseek_v3",
        "deepseek-ai/DeepSeek-V3",
        "a public report on DeepSeek-R1, of the same shape, lists all 91,991 names, repository not recorded, and README_WEIGHTS.md in "
        "github.com/tenstorrent/tt-metal models/demos/deepseek_v3/reference does in outline; here without the weight_scale_inv of the "
        "float8 matrices, which a cast to bfloat16 leaves out: float8 itself is not read",
        "deepseek-v3",
        (
            "{model.embed_tokens,model.norm,lm_head}.weight",
            f"{V3}.self_attn.{{q_a_proj,q_a_layernorm,q_b_proj,kv_a_proj_with_mqa,kv_a_layernorm,kv_b_proj,o_proj}}.weight",
            f"{V3}.{{input,post_attention}}_layernorm.weight",
            "model.layers.{0..2}.mlp.{gate,up,down}_proj.weight",
            "model.layers.{3..61}.mlp.gate.{weight,e_score_correction_bias}",
            "model.layers.{3..61}.mlp.shared_experts.{gate,up,down}_proj.weight",
            "model.layers.{3..61}.mlp.experts.{0..255}.{gate,up,down}_proj.weight",
            "model.layers.61.{eh_proj,embed_tokens,enorm,hnorm,shared_head.head,shared_head.norm}.weight",
        ),
    ),
]
