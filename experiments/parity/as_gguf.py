"""A model of transformers as a GGUF file in float32, for llama.cpp: Llama and Gemma 3.

The file has no tokenizer ("no_vocab"): what is compared are token ids.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Values = np.ndarray[Any, np.dtype[np.float32]]

# What the format calls the parts of a block, by what transformers calls them.
COMMON = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
PARTS = {
    "llama": COMMON | {"post_attention_layernorm": "ffn_norm"},
    "gemma3_text": COMMON
    | {
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}
ARCHITECTURES = {"llama": "llama", "gemma3_text": "gemma3"}
OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def write(file: Path, hf: Any) -> None:
    """Write a model of transformers; raises for an architecture that is not in `ARCHITECTURES`."""
    config = hf.config
    if config.model_type not in ARCHITECTURES:
        raise SystemExit(
            f"{config.model_type} is not written; these are: {', '.join(ARCHITECTURES)}"
        )
    out = gguf.GGUFWriter(file, ARCHITECTURES[config.model_type])
    out.add_context_length(config.max_position_embeddings)
    out.add_block_count(config.num_hidden_layers)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_key_length(config.head_dim)
    out.add_value_length(config.head_dim)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("no_vocab")
    if config.model_type == "gemma3_text":
        out.add_rope_freq_base(float(config.rope_parameters["full_attention"]["rope_theta"]))
        out.add_sliding_window(config.sliding_window)
    else:
        out.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
        out.add_rope_dimension_count(config.head_dim)
    change = changes(config)
    seen = set()
    for name, weight in hf.named_parameters():
        if weight.data_ptr() in seen:  # one that is tied stands once
            continue
        seen.add(weight.data_ptr())
        values = weight.detach().float().numpy()
        out.add_tensor(named(name, config.model_type), np.ascontiguousarray(change(name, values)))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def changes(config: Any) -> Callable[[str, Values], Values]:
    """What the format has differently from transformers, by a parameter's name."""

    def change(name: str, values: Values) -> Values:
        if config.model_type == "gemma3_text":
            # Norms multiply by 1 + weight there, and by the weight here.
            return values + 1 if name.endswith("norm.weight") else values
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        part = name.split(".")[-2]
        return turned(values, heads[part]) if part in heads else values

    return change


def turned(values: Values, heads: int) -> Values:
    """Rows of a query or key projection in the order of llama.cpp's Llama: rotated pairs lie side
    by side there, and half a head apart in transformers."""
    rows, width = values.shape
    pairs = values.reshape(heads, 2, rows // heads // 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def named(parameter: str, kind: str) -> str:
    """The format's name of a parameter."""
    whole, _, end = parameter.rpartition(".")
    if whole in OUTSIDE:
        return f"{OUTSIDE[whole]}.{end}"
    _, _, layer, *part = whole.split(".")
    return f"blk.{layer}.{PARTS[kind]['.'.join(part)]}.{end}"
