"""Train sparse autoencoders with sae-lens, at several layers from one stream of a model's
activations.

`Stream` reads documents and gives shuffled token vectors; `train` trains one autoencoder or more on
it in step; `save` writes each as `SAE.load` reads it.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from steerlab.core.cache import cache_folder
from steerlab.core.sites import hook_name
from steerlab.models.model import Model

SITE = "resid_post"
BATCH = 1024  # tokens of a step
MIXED = 64 * BATCH  # tokens that are shuffled together
ROWS = 64  # documents that run together

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """What is trained.

    Args:
        tokens: how many are trained on.
        times: latents, in widths of the model.
        active: how many latents are on at a token, in the mean.
        rate: the learning rate; the last quarter of the steps brings it down to a tenth.
        half: whether matrices multiply in bfloat16, which is quicker where the CPU can; the
            weights and the optimiser's sums stay in float32.
    """

    tokens: int
    times: int = 8
    active: int = 32
    rate: float = 6e-4
    half: bool = False


@dataclass(frozen=True)
class Cost:
    """What a training took.

    Args:
        tokens: how many were trained on.
        seconds: by the clock.
        cpu_seconds: of the processor.
        reading: of these, those that the model took.
    """

    tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    reading: float = 0.0

    @classmethod
    def now(cls) -> "Cost":
        return cls(seconds=time.monotonic(), cpu_seconds=time.process_time())

    def __add__(self, other: "Cost") -> "Cost":
        return self._with(other, 1)

    def __sub__(self, other: "Cost") -> "Cost":
        return self._with(other, -1)

    def _with(self, other: "Cost", sign: int) -> "Cost":
        return Cost(
            **{key: value + sign * getattr(other, key) for key, value in asdict(self).items()}
        )


class Stream(Iterator[Batch]):
    """Endless batches of shuffled token vectors by hook name, BOS and padding left out.

    Args:
        model: whose activations.
        document: gives the tokens of a document, which begin with BOS; called again and again.
        layers: which layers are read.
        centred: whether the mean of the first tokens that are read is subtracted. Where activations
            have a large mean in common, an autoencoder would spend its first steps, and a stronger
            learning rate than its other weights can bear, on finding it. `save` adds it to `b_dec`.
        seed: of the order of tokens.
    """

    def __init__(
        self,
        model: Model,
        document: Callable[[], Sequence[int]],
        layers: Sequence[int],
        *,
        centred: bool = False,
        seed: int = 0,
    ):
        self.model = model
        self.document = document
        self.layers = tuple(layers)
        self.centred = centred
        self.centres: dict[str, torch.Tensor] = {}  # by hook name, where they are subtracted
        self.order = torch.Generator().manual_seed(seed)
        self.waiting: list[Batch] = []
        self.reading = 0.0  # CPU seconds
        # 16 bits hold what will be shuffled; float16 is finer, and too small for some models.
        self.stored = torch.bfloat16 if model.dtype == torch.bfloat16 else torch.float16

    def __next__(self) -> Batch:
        if not self.waiting:
            start = time.process_time()
            self.waiting = self._mixed()
            self.reading += time.process_time() - start
        batch = self.waiting.pop()
        return {name: h.float() - self.centres.get(name, 0) for name, h in batch.items()}

    def _mixed(self) -> list[Batch]:
        parts: list[torch.Tensor] = []
        count = 0
        while count < MIXED:
            parts.append(self._read())
            count += parts[-1].shape[1]
        tokens = torch.cat(parts, 1)
        names = [hook_name(SITE, layer) for layer in self.layers]
        if self.centred and not self.centres:
            means = [of_layer.float().mean(0) for of_layer in tokens]
            self.centres = dict(zip(names, means, strict=True))
        chosen = torch.randperm(tokens.shape[1], generator=self.order)[:MIXED].split(BATCH)
        return [dict(zip(names, tokens[:, places], strict=True)) for places in chosen]

    @torch.inference_mode()
    def _read(self) -> torch.Tensor:
        """[layer token width] of some rows."""
        documents = sorted((list(self.document()) for _ in range(4 * ROWS)), key=len)
        return torch.cat(
            [
                self._run(documents[start : start + ROWS])
                for start in range(0, len(documents), ROWS)
            ],
            1,
        )

    def _run(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(list(row)) for row in rows], batch_first=True
        )
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        seen: dict[int, torch.Tensor] = {}

        def keep(layer: int) -> Any:
            return lambda h, where: seen.__setitem__(layer, h[where.text].to(self.stored))

        with self.model.attached([(SITE, layer, keep(layer)) for layer in self.layers]):
            self.model.body(ids, mask, through=max(self.layers))
        return torch.stack([seen[layer] for layer in self.layers])


def untrained(kind: str, model: Model, layer: int, recipe: Recipe) -> Any:
    """A new autoencoder of sae-lens: "topk", "batchtopk" or "jumprelu"."""
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
        "model_name": model.name,
    }
    sizes: dict[str, Any] = {
        "d_in": model.width,
        "d_sae": recipe.times * model.width,
        "device": str(model.device),
        "normalize_activations": "expected_average_only_in",
        "metadata": SAEMetadata(**about),
    }
    configs = {
        "topk": lambda: TopKTrainingSAEConfig(k=recipe.active, **sizes),
        "batchtopk": lambda: BatchTopKTrainingSAEConfig(k=recipe.active, **sizes),
        "jumprelu": lambda: JumpReLUTrainingSAEConfig(
            jumprelu_sparsity_loss_mode="quadratic",
            target_l0=recipe.active,
            l0_warm_up_steps=200,
            # near where it has to end: so few steps move its logarithm by .35 at most
            jumprelu_init_threshold=0.8,
            jumprelu_bandwidth=0.5,
            **sizes,
        ),
    }
    torch.manual_seed(0)
    return TrainingSAE.from_dict(configs[kind]().to_dict())


def train(
    model: Model,
    stream: Stream,
    saes: Mapping[str, tuple[str, int]],
    recipe: Recipe,
    *,
    checkpoints: Path | None = None,
    resume: bool = False,
) -> tuple[dict[str, Any], Cost]:
    """Autoencoders by name, each (kind, layer), trained in step on the same stream; and what that
    took.

    Args:
        model: whose activations the stream gives.
        stream: gives them.
        saes: what to train.
        recipe: for how long and how fast.
        checkpoints: a folder that keeps the state after every eighth, the last one only.
        resume: whether to go on from there; where it is as far as the recipe asks, what is there
            is taken.
    """
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.multi_sae_trainer import MultiSAETrainer

    steps = recipe.tokens // BATCH
    config = SAETrainerConfig(
        total_training_samples=recipe.tokens,
        train_batch_size_samples=BATCH,
        device=str(model.device),
        autocast=recipe.half,
        lr=recipe.rate,
        lr_end=recipe.rate / 10,
        lr_warm_up_steps=100,
        lr_decay_steps=steps // 4,
        dead_feature_window=200,
        feature_sampling_window=max(100, steps // 10),
        n_batches_for_norm_estimate=20,
        n_checkpoints=7 if checkpoints else 0,
        checkpoint_path=str(checkpoints) if checkpoints else None,
    )
    made = {name: untrained(kind, model, layer, recipe) for name, (kind, layer) in saes.items()}
    hooks = {name: hook_name(SITE, layer) for name, (_, layer) in saes.items()}

    before, began = Cost(), Cost.now()

    def so_far() -> Cost:
        spent = before + Cost.now() - began
        return replace(
            spent, tokens=trainer.n_training_samples, reading=before.reading + stream.reading
        )

    def newest(checkpoint_path: Path | None) -> None:
        assert checkpoint_path is not None
        # A mean that was subtracted from what they were trained on is part of their state.
        save_file(stream.centres, checkpoint_path / "centres.safetensors")
        (checkpoint_path / "cost.json").write_text(json.dumps(asdict(so_far())), "utf-8")
        for older in checkpoint_path.parent.iterdir():
            if older.name != checkpoint_path.name:
                shutil.rmtree(older)

    trainer = MultiSAETrainer(
        config, made, hooks, stream, save_checkpoint_fn=newest if checkpoints else None
    )
    if (
        resume
        and checkpoints
        and (there := sorted(checkpoints.glob("*/centres.safetensors"), key=_tokens))
    ):
        trainer.load_checkpoint(there[-1].parent)
        stream.centres = load_file(there[-1])
        if (there[-1].parent / "cost.json").exists():
            before = Cost(**json.loads((there[-1].parent / "cost.json").read_text("utf-8")))
    return trainer.fit(), so_far()


def _tokens(file: Path) -> int:
    """After how many tokens a file of a checkpoint was written."""
    return int(file.parent.name)


def save(sae: Any, folder: Path, *, centre: torch.Tensor | None = None, **metadata: Any) -> None:
    """sae-lens' own two files, the weights in 16 bit.

    Args:
        sae: a trained autoencoder of sae-lens.
        folder: where the files are written.
        centre: what was subtracted from the activations that it was trained on.
        metadata: what its configuration is to say of its training.
    """
    if centre is not None:
        # It reads h - b_dec and writes b_dec back, so that a shift of h is one of b_dec.
        if not sae.cfg.apply_b_dec_to_input:
            raise ValueError("only an autoencoder that subtracts b_dec can take a centre into it")
        with torch.no_grad():
            sae.b_dec += centre.to(sae.b_dec)
    for name, value in metadata.items():
        setattr(sae.cfg.metadata, name, value)
    sae.save_inference_model(folder)
    file = folder / "sae_weights.safetensors"
    halves = {name: value.half().contiguous() for name, value in load_file(file).items()}
    if broken := [name for name, value in halves.items() if not value.isfinite().all()]:
        raise SystemExit(f"{folder}: {', '.join(broken)} do not fit into 16 bit")
    save_file(halves, file)


def kept(model: Model) -> Path:
    """The folder of the user's cache for autoencoders of a model that are not part of steerlab."""
    name = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in model.name)
    return cache_folder() / "saes" / f"{name}-{model.fingerprint}"
