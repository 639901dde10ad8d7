"""Train a small model on a language and its clone."""

from dataclasses import dataclass

import numpy as np
import torch
from clones import LENGTH, Text, sequences, swap_of
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Run:
    """A model to train and score.

    Args:
        tokens: how many it sees.
        shares: of the sequences, those in the clone, in equal parts of the training one after
            another: (0, 0.5) begins the clone half-way.
        frac: the share of tokens that have a clone.
        layers: of the model.
        width: of the model.
        seed: decides weights, order and which sequences are cloned.
        rows: the sequences of a step.
    """

    tokens: int
    shares: tuple[float, ...] = (0.5,)
    frac: float = 1.0
    layers: int = 4
    width: int = 96
    seed: int = 0
    rows: int = 32

    @property
    def name(self) -> str:
        """Of its record."""
        shares = "-".join(f"{share:g}" for share in self.shares)
        return (
            f"{self.layers}x{self.width}_{self.tokens}_share-{shares}_frac-{self.frac:g}"
            f"_seed-{self.seed}"
        )

    @property
    def setting(self) -> tuple[int, int, int, tuple[float, ...], float]:
        """All but the seed."""
        return (self.layers, self.width, self.tokens, self.shares, self.frac)


def untrained(run: Run, words: int) -> LlamaForCausalLM:
    """The model before its first step."""
    torch.manual_seed(run.seed)
    heads = 4 if run.width <= 256 else run.width // 64
    config = LlamaConfig(
        vocab_size=2 * words + 1,
        bos_token_id=2 * words,
        eos_token_id=None,
        hidden_size=run.width,
        intermediate_size=32 * round(run.width / 12),
        num_hidden_layers=run.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2 * LENGTH,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def draws(run: Run, count: int) -> tuple[Tensor, Tensor]:
    """Which of `count` sequences each step reads, and which of these are cloned, [step row]."""
    drawn = np.random.default_rng(run.seed)
    steps = max(1, run.tokens // (run.rows * LENGTH))
    chosen = drawn.integers(count, size=(steps, run.rows))
    part = np.arange(steps) * len(run.shares) // steps
    share = np.array(run.shares)[part, None]
    return torch.from_numpy(chosen), torch.from_numpy(drawn.random(chosen.shape) < share)


def train(text: Text, run: Run, device: str = "cpu") -> LlamaForCausalLM:
    """A model trained on a text, part of its sequences in the clone.

    The learning rate warms up, and falls to a tenth as a cosine; its largest value is 2e-3 at a
    width of 96, and falls as one over the root of the width. Data, draws and weights lie on the
    device and no step waits for it; on a GPU products are in bfloat16.
    """
    model = untrained(run, text.words)
    model.to(torch.device(device))  # type: ignore[arg-type]  # its wrapper hides what `to` takes
    data = sequences(text.stream, text.words).to(device)
    swap = swap_of(text.words, run.frac).to(device)
    chosen, moved = (draw.to(device) for draw in draws(run, len(data)))
    steps = len(chosen)
    rate = 2e-3 * (96 / run.width) ** 0.5
    warm = max(50, steps // 50)
    gpu = device.startswith("cuda")
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), fused=gpu)
    model.train()
    for step in range(steps):
        falling = 0.1 + 0.45 * (1 + np.cos(np.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = float(rate * min(1.0, (step + 1) / warm) * falling)
        rows = data[chosen[step]]
        rows = torch.where(moved[step][:, None], swap[rows], rows)
        with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
            loss = model(input_ids=rows, labels=rows).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


@torch.inference_mode()
def perplexity(model: LlamaForCausalLM, text: Text, swap: Tensor, *, clone: bool) -> float:
    """Of held-out tokens, in the first language or its clone."""
    rows = sequences(text.held, text.words)
    rows = (swap.cpu()[rows] if clone else rows).to(model.device)
    # Each row has as many targets, so that the mean of means is the mean, but for the last part.
    parts = rows.split(256)
    losses = [model(input_ids=part, labels=part).loss * len(part) for part in parts]
    return float((torch.stack(losses).sum() / len(rows)).exp())
