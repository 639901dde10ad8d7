"""GGUF files of a tiny random model, written with the reference writer of the format."""

from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
MERGES = ["t h", "th e", "Ġ the"]
LAYERS = 2

# What the format calls the parts of a block of Gemma 3.
_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def tokens() -> list[str]:
    """A vocabulary of bytes, the ends of a text, and what three merges make."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    return [PAD, EOS, BOS, *bytes_to_unicode().values(), *merged]


def tiny_gemma3(seed: int = 0) -> Any:
    """A random Gemma 3 of the vocabulary of `tokens`, in float32."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "gemma3_text",
        vocab_size=len(tokens()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        sliding_window=64,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def write(
    file: Path, model: Any, *, packed: tuple[str, ...] = (), architecture: str = "gemma3"
) -> dict[str, torch.Tensor]:
    """Write the model; gives what its parameters are after packing.

    Args:
        file: the .gguf file.
        model: of `tiny_gemma3`.
        packed: endings of the names of the parameters that are packed as Q8_0; the others are kept
            in float32.
        architecture: what the file says that it holds.
    """
    out = gguf.GGUFWriter(file, architecture)
    config = model.config
    out.add_name("tiny")
    out.add_context_length(config.max_position_embeddings)
    out.add_block_count(config.num_hidden_layers)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_key_length(config.head_dim)
    out.add_value_length(config.head_dim)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_sliding_window(config.sliding_window)
    out.add_rope_freq_base(1_000_000.0)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list(tokens())
    out.add_token_merges(MERGES)
    out.add_token_types([3, 3, 3] + [1] * (len(tokens()) - 3))  # control tokens, then plain ones
    out.add_pad_token_id(0)
    out.add_eos_token_id(1)
    out.add_bos_token_id(2)
    out.add_add_bos_token(True)
    kept = {}
    for name, weight in model.named_parameters():
        values = weight.detach().numpy()
        stored = values + 1 if name.endswith("norm.weight") else values  # as the format has norms
        if name.endswith(packed):
            raw = gguf.quantize(stored, gguf.GGMLQuantizationType.Q8_0)
            out.add_tensor(_name(name), raw, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            values = gguf.dequantize(raw, gguf.GGMLQuantizationType.Q8_0)
        else:
            out.add_tensor(_name(name), stored)
            values = stored - 1 if name.endswith("norm.weight") else stored
        kept[name] = torch.from_numpy(values.copy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return kept


def _name(parameter: str) -> str:
    """The format's name of a parameter."""
    if parameter == "model.embed_tokens.weight":
        return "token_embd.weight"
    if parameter == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, *part, end = parameter.split(".")
    return f"blk.{layer}.{_BLOCK['.'.join(part)]}.{end}"
