"""What every contender of the sweep reads: a model folder, eight prompts as tokens, and one
vector for each cell."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environments import BUILD
from safetensors.torch import save_file
from torch import Tensor

import steerlab as sl
from steerlab.engine.prompts import encode, pad
from steerlab.models.loading import PACKAGED
from steerlab.models.model import Model
from steerlab.models.positions import Positions

PROMPTS, NEW_TOKENS = 8, 24
TARGETS = ("de", "es", "fr", "it", "pt", "nl", "sv", "pl", "ru", "bg", "tr", "ja")
STRENGTHS = (0.5, 1.0, 1.5, 2.0)
MODELS = ("polyglot", "random150")
# A Llama of 148 M parameters with polyglot's vocabulary, every second of whose 16 layers is
# steered.
SHAPE = {
    "hidden_size": 768,
    "intermediate_size": 2816,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
}
GAP = 0.5  # of the mean length of the residual stream: a random direction has no natural gap


@dataclass(frozen=True)
class Material:
    """Where a model is and what the contenders read; cell = (layer · targets + target) ·
    strengths + strength."""

    model: Path
    file: Path
    layers: tuple[int, ...]

    @property
    def cells(self) -> int:
        return len(self.layers) * len(TARGETS) * len(STRENGTHS)


def material(name: str) -> Material:
    """Make the files of one of the two models under build/bench."""
    folder = PACKAGED if name == "polyglot" else random_llama(BUILD / name)
    model = sl.load(str(folder), dtype="float32")
    layers = tuple(range(8)) if name == "polyglot" else tuple(range(1, model.n_layers, 2))
    lines = sl.corpus().split("dev").take(PROMPTS)["en"]
    prompts = [f"{line}\n" for line in lines]
    unit, gap = (_language_directions if name == "polyglot" else _random_directions)(
        model, layers, prompts
    )
    made = Material(folder, BUILD / f"{name}.safetensors", layers)
    _write(made, model, prompts, unit, gap)
    return made


def random_llama(folder: Path) -> Path:
    """Write a random Llama with polyglot's tokenizer, always the same one."""
    if (folder / "model.safetensors").exists():
        return folder
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(PACKAGED, padding_side="left")
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape: dict[str, Any] = {
        **SHAPE,
        **tokens,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": len(tokenizer),
    }
    torch.manual_seed(0)
    hf: Any = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))
    tokenizer.save_pretrained(folder)
    hf.to(torch.bfloat16).save_pretrained(folder)
    return folder


def _language_directions(
    model: Model, layers: tuple[int, ...], prompts: list[str]
) -> tuple[Tensor, Tensor]:
    """DiffMean from English to each target: unit [layer target width] and gap [layer target]."""
    moments = sl.collect(
        model, sl.corpus().split("estimate").select(["en", *TARGETS]), layers=layers, also=[]
    )
    directions = sl.diffmean(moments)
    steps = [directions.between("en", iso) for iso in TARGETS]
    return torch.stack([step.unit for step in steps], 1), torch.stack(
        [step.gap for step in steps], 1
    )


def _random_directions(
    model: Model, layers: tuple[int, ...], prompts: list[str]
) -> tuple[Tensor, Tensor]:
    """Random unit vectors, with half the mean length of the residual stream for a gap."""
    unit = torch.randn(
        len(layers), len(TARGETS), model.width, generator=torch.Generator().manual_seed(0)
    )
    length: dict[int, float] = {}

    def keep(layer: int) -> Any:
        def look(h: Tensor, where: Positions) -> None:
            length[layer] = float(h.norm(dim=-1)[where.text].mean())

        return look

    ids, mask = pad(encode(model.tokenizer, prompts), model.tokenizer.pad_token_id, model.device)
    with (
        torch.inference_mode(),
        model.attached([("resid_post", layer, keep(layer)) for layer in layers]),
    ):
        model.body(ids, mask)
    gap = GAP * torch.tensor([length[layer] for layer in layers])
    return unit / unit.norm(dim=-1, keepdim=True), gap[:, None].expand(-1, len(TARGETS))


def _write(made: Material, model: Model, prompts: list[str], unit: Tensor, gap: Tensor) -> None:
    ids, mask = pad(encode(model.tokenizer, prompts), model.tokenizer.pad_token_id, model.device)
    texts = model.tokenizer.batch_decode([[token] for token in range(model.config.vocab_size)])
    tensors = {
        "ids": ids,
        "mask": mask,
        "unit": unit,
        "gap": gap,
        # As `add` computes it, so that every contender adds the same bits.
        "shift": torch.tensor(STRENGTHS)[:, None] * gap[:, :, None, None] * unit[:, :, None],
        "breaks": torch.tensor(["\n" in text for text in texts]),
        "blank": torch.tensor([not text.strip() for text in texts]),
    }
    told = {
        "folder": str(made.model),
        "layers": made.layers,
        "strengths": STRENGTHS,
        "prompts": prompts,
    }
    tokens = {name: getattr(model.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    made.file.parent.mkdir(parents=True, exist_ok=True)
    header = {"about": json.dumps(told | tokens | {"new_tokens": NEW_TOKENS})}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, made.file, metadata=header
    )
