"""Small models that also see, in the seven shapes that steerlab knows, made from nothing but
their configurations; and one picture as each one's processor would give it."""

from typing import Any

import torch
from torch import Tensor

import steerlab as sl
from steerlab.models.model import Model

DEPTH = 3  # of the text decoder and of the vision tower, so that no count tells them apart
IMAGE = 7  # the token in whose places a picture's parts are put
TEXT = {
    "vocab_size": 12288,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 32,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
QWEN = {"depth": DEPTH, "num_heads": 4, "patch_size": 14, "spatial_merge_size": 2}
EPS = {"rms_norm_eps": 1e-6}
ROPE = EPS | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
}
SIGLIP = TOWER | {"model_type": "siglip_vision_model"}
SHAPES: dict[str, dict[str, Any]] = {
    "llava": {
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": TOWER | {"model_type": "clip_vision_model", "projection_dim": 16},
        "image_token_index": IMAGE,
    },
    "qwen2_vl": {
        "text_config": TEXT | ROPE,
        "vision_config": QWEN | {"embed_dim": 32, "hidden_size": 32},
        "image_token_id": IMAGE,
    },
    "qwen2_5_vl": {
        "text_config": TEXT | ROPE,
        "vision_config": QWEN
        | {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48}
        | {"fullatt_block_indexes": [1], "window_size": 56},
        "image_token_id": IMAGE,
    },
    "gemma3": {
        "text_config": TEXT | {"head_dim": 8, "sliding_window": 8},
        "vision_config": SIGLIP,
        "image_token_index": IMAGE,
        "mm_tokens_per_image": 4,
    },
    "paligemma": {
        "text_config": TEXT | {"model_type": "gemma", "head_dim": 8},
        "vision_config": SIGLIP,
        "image_token_index": IMAGE,
        "projection_dim": 32,
    },
    "idefics3": {
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": TOWER | {"model_type": "idefics3_vision"},
        "image_token_id": IMAGE,
        "scale_factor": 1,
    },
    "smolvlm": {
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": TOWER | {"model_type": "smolvlm_vision"},
        "image_token_id": IMAGE,
        "scale_factor": 1,
    },
}
OWN = {  # the class of each one's text model
    "qwen2_vl": "Qwen2ForCausalLM",
    "qwen2_5_vl": "Qwen2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "paligemma": "GemmaForCausalLM",
}


def made(shape: str, *, text: dict[str, Any] | None = None, seed: int = 0) -> Any:
    """A model of a shape with random weights.

    Args:
        shape: a key of SHAPES.
        text: the configuration of the part that writes, in place of the small one.
        seed: of the weights.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(seed)
    parts = SHAPES[shape] if text is None else SHAPES[shape] | {"text_config": text}
    config = AutoConfig.for_model(shape, **parts, tie_word_embeddings=False)
    hf = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for weight in hf.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.flatten(1).shape[-1] ** -0.5)
    return hf.eval()


def writer_of(hf: Any) -> Any:
    """The part that writes."""
    return getattr(hf.model, "language_model", None) or hf.model.text_model


def own_text_model(shape: str, model: Model) -> Model:
    """The text model by itself, of the same weights."""
    import transformers

    inner: Any = model.hf
    kind = getattr(transformers, OWN.get(shape, "LlamaForCausalLM"))
    config = kind.config_class(**SHAPES[shape]["text_config"] | {"tie_word_embeddings": False})
    hf = kind(config)
    hf.model.load_state_dict(writer_of(inner).state_dict())
    hf.lm_head.load_state_dict(inner.lm_head.state_dict())
    return sl.load(hf, tokenizer=model.tokenizer)


def picture(shape: str, ids: Tensor, *, seed: int = 5) -> dict[str, Tensor]:
    """One picture of noise, of four parts, for each row of ids, as each model's processor gives
    it."""
    random = torch.Generator().manual_seed(seed)
    rows = len(ids)
    if shape.startswith("qwen"):
        patches = torch.randn(16, 3 * 2 * 14 * 14, generator=random).repeat(rows, 1)
        size = torch.tensor([[1, 4, 4]] * rows)
        kinds = (ids == IMAGE).int()
        return {"pixel_values": patches, "image_grid_thw": size, "mm_token_type_ids": kinds}
    pixels = torch.randn(1, 3, 28, 28, generator=random).repeat(rows, 1, 1, 1)
    if shape == "paligemma":  # a prompt that is read in both directions
        return {"pixel_values": pixels, "token_type_ids": torch.zeros_like(ids)}
    return {"pixel_values": pixels[:, None] if shape in ("idefics3", "smolvlm") else pixels}
