"""Train sparse autoencoders for polyglot with sae-lens, all layers from one stream of the model's
activations.

`python experiments/polyglot/train_saes.py WORK --compare` trains TopK, BatchTopK and JumpReLU at
one layer, side by side on the same batches, into WORK/compare; without `--compare` it trains what
was chosen from that, at every layer, into the package, beside the model. WORK holds what data.py
left. `evaluate_saes.py WORK` writes the card.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import Documents
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from steerlab.core.sites import hook_name
from steerlab.models.loading import PACKAGED, load
from steerlab.models.model import Model

SITE, TIMES, ACTIVE, COMPARED = "resid_post", 8, 32, 4
TOKENS, COMPARED_TOKENS, BATCH, RATE = 1_600_000, 600_000, 1024, 6e-4
MIXED = 64 * BATCH  # tokens that are shuffled together
MIXTURE = (
    0.7,
    0.2,
    0.1,
)  # monolingual runs, bare translations, instructed pairs; languages in equal shares
LENGTH, ROWS = 128, 64

Batch = dict[str, torch.Tensor]


class Stream(Iterator[Batch]):
    """Endless batches of shuffled token vectors by hook name, BOS and padding left out."""

    def __init__(self, model: Model, documents: Documents, layers: tuple[int, ...]):
        self.model, self.documents, self.layers = model, documents, layers
        self.waiting: list[Batch] = []
        self.order = torch.Generator().manual_seed(0)

    def __next__(self) -> Batch:
        if not self.waiting:
            self.waiting = self._mixed()
        return self.waiting.pop()

    def _mixed(self) -> list[Batch]:
        parts, count = [], 0
        while count < MIXED:
            parts.append(self._read())
            count += parts[-1].shape[1]
        tokens = torch.cat(parts, 1)
        chosen = torch.randperm(tokens.shape[1], generator=self.order)[:MIXED].split(BATCH)
        names = [hook_name(SITE, layer) for layer in self.layers]
        return [dict(zip(names, tokens[:, places].float(), strict=True)) for places in chosen]

    @torch.inference_mode()
    def _read(self) -> torch.Tensor:
        """[layer token width] of some rows, in 16 bit."""
        told = sorted((self.documents.document(LENGTH)[0] for _ in range(4 * ROWS)), key=len)
        return torch.cat(
            [self._run(told[start : start + ROWS]) for start in range(0, len(told), ROWS)], 1
        )

    def _run(self, rows: list[np.ndarray]) -> torch.Tensor:
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row.astype(np.int64)) for row in rows], batch_first=True
        )
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        seen: dict[int, torch.Tensor] = {}

        def keep(layer: int) -> Any:
            return lambda h, where: seen.__setitem__(layer, h[where.text].half())

        with self.model.attached([(SITE, layer, keep(layer)) for layer in self.layers]):
            self.model.body(ids, mask)
        return torch.stack([seen[layer] for layer in self.layers])


def documents(work: Path) -> Documents:
    """The training lines, every language as likely as any other."""
    lines = json.loads((work / "lines.json").read_text("utf-8"))
    found = Documents(
        lines, Tokenizer.from_file(str(PACKAGED / "tokenizer.json")), mixture=MIXTURE, seed=1
    )
    found.p_mono = np.full(len(found.p_mono), 1 / len(found.p_mono))
    found.p_pair = np.full(len(found.p_pair), 1 / len(found.p_pair))
    return found


def untrained(kind: str, model: Model, layer: int) -> Any:
    """A new SAE of sae-lens."""
    from sae_lens import (
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAEConfig,
        TopKTrainingSAEConfig,
        TrainingSAE,
    )
    from sae_lens.saes.sae import SAEMetadata

    about = model.metadata | {
        "layer": layer,
        "hook_name": hook_name(SITE, layer),
        "model_name": "polyglot",
    }
    told: dict[str, Any] = {
        "d_in": model.width,
        "d_sae": TIMES * model.width,
        "device": str(model.device),
    }
    told |= {"normalize_activations": "expected_average_only_in", "metadata": SAEMetadata(**about)}
    configs = {
        "topk": lambda: TopKTrainingSAEConfig(k=ACTIVE, **told),
        "batchtopk": lambda: BatchTopKTrainingSAEConfig(k=ACTIVE, **told),
        "jumprelu": lambda: JumpReLUTrainingSAEConfig(
            jumprelu_sparsity_loss_mode="quadratic",
            target_l0=ACTIVE,
            l0_warm_up_steps=200,
            # near where it has to end: so few steps move its logarithm by .35 at most
            jumprelu_init_threshold=0.8,
            jumprelu_bandwidth=0.5,
            **told,
        ),
    }
    torch.manual_seed(0)
    return TrainingSAE.from_dict(configs[kind]().to_dict())


def train(
    model: Model, stream: Stream, saes: dict[str, tuple[str, int]], tokens: int
) -> dict[str, Any]:
    """SAEs by name, each (kind, layer), trained in step on the same stream."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.multi_sae_trainer import MultiSAETrainer

    steps = tokens // BATCH
    config = SAETrainerConfig(
        total_training_samples=tokens,
        train_batch_size_samples=BATCH,
        device=str(model.device),
        lr=RATE,
        lr_end=RATE / 10,
        lr_warm_up_steps=100,
        lr_decay_steps=steps // 4,
        dead_feature_window=200,
        feature_sampling_window=max(100, steps // 10),
        n_batches_for_norm_estimate=20,
    )
    made = {name: untrained(kind, model, layer) for name, (kind, layer) in saes.items()}
    hooks = {name: hook_name(SITE, layer) for name, (_, layer) in saes.items()}
    return MultiSAETrainer(config, made, hooks, stream).fit()


def save(sae: Any, folder: Path, tokens: int) -> None:
    """sae-lens' own two files, the weights in 16 bit."""
    sae.cfg.metadata.training_tokens = tokens
    sae.save_inference_model(folder)
    file = folder / "sae_weights.safetensors"
    halves = {name: value.half().contiguous() for name, value in load_file(file).items()}
    if broken := [name for name, value in halves.items() if not value.isfinite().all()]:
        raise SystemExit(f"{folder}: {', '.join(broken)} do not fit into 16 bit")
    save_file(halves, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--compare", action="store_true", help="three kinds at one layer")
    parser.add_argument("--kind", default="batchtopk")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    model = load(device=options.device)
    if options.compare:
        layers: tuple[int, ...] = (COMPARED,)
        saes = {kind: (kind, COMPARED) for kind in ("topk", "batchtopk", "jumprelu")}
        tokens, out = options.tokens or COMPARED_TOKENS, options.work / "compare"
    else:
        layers = tuple(options.layers or range(model.n_layers))
        saes = {f"layer_{layer}": (options.kind, layer) for layer in layers}
        tokens, out = options.tokens or TOKENS, PACKAGED / "saes"
    made = train(model, Stream(model, documents(options.work), layers), saes, tokens)
    for name, sae in made.items():
        save(sae, out / name, tokens)
        print(out / name)


if __name__ == "__main__":
    main()
