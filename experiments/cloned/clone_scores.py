"""Score methods against the truth: what the model says by itself, each token moved to the clone."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from clone_models import Run
from clone_saes import (
    Aligned,
    Maps,
    aligned,
    linear_map,
    rotation_map,
    token_cosines,
    train_saes,
)
from clones import Text, sequences, swap_of, tokenizer, written
from torch import Tensor

import steerlab as sl
from steerlab.analysis.intervals import by_sentence
from steerlab.core.directions import Directions
from steerlab.core.moments import Moments
from steerlab.edits import Edit
from steerlab.engine.collect import text_means
from steerlab.engine.forward import rows_on
from steerlab.engine.prompts import pad
from steerlab.estimate.registry import VARIANTS
from steerlab.estimate.units.as_directions import decoded, sae_diffmean
from steerlab.estimate.units.monolinguality import monolinguality
from steerlab.estimate.units.selection import selected
from steerlab.models.model import Model

FIRST, SECOND = "first", "clone"
STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
FEATURES = 16  # latents of a language, chosen by how often they are on
RANKS = (1, 4, 16, 64)
TOGETHER = 256  # rows of a pass

# (estimator, operator, its knob, what is tried): a row of the table each
VECTORS: tuple[tuple[str, str, str, tuple[float, ...]], ...] = (
    ("diffmean", "add", "strength", STRENGTHS),
    ("lda", "add", "strength", STRENGTHS),
    ("pca", "add", "strength", STRENGTHS),
    ("probe", "add", "strength", STRENGTHS),
    ("eigengap", "add", "strength", STRENGTHS),
    ("sae diffmean", "add", "strength", STRENGTHS),
    ("sae top latents", "add", "strength", STRENGTHS),
    ("sae monolinguality", "add", "strength", STRENGTHS),
    ("random", "add", "strength", STRENGTHS),
    ("diffmean", "affine", "level", STRENGTHS),
    ("diffmean", "rotate", "share", SHARES),
    ("eigengap", "push", "strength", STRENGTHS),
    ("ellipsoid", "conceptor", "quota", (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)),
    ("sparse", "overwrite", "scale", (0.3, 0.5, 0.7, 1.0, 1.5, 2.0)),
)


@dataclass
class Bed:
    """A trained model, and sentences that it has not seen.

    Args:
        model: that is steered.
        text: its held-out sentences.
        swap: what each token is in the other language.
        pairs: token vectors of training text in both languages.
        read: how many sequences these are of.
        sae_steps: for how long autoencoders are trained.
    """

    model: Model
    text: Text
    swap: Tensor
    pairs: Aligned
    read: int
    sae_steps: int

    @classmethod
    def of(cls, hf: Any, text: Text, run: Run, *, read: int, sae_steps: int) -> "Bed":
        model = sl.load(hf, tokenizer=tokenizer(text.words))
        swap = swap_of(text.words, run.frac)
        rows = sequences(text.stream, text.words)
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:read]
        return cls(model, text, swap, aligned(model, rows[drawn], swap), len(drawn), sae_steps)

    def corpus(self, split: str) -> Any:
        """The sentences of a split, in both languages."""
        ids = self.text.splits[split]
        moved = [self.swap[torch.tensor(row)].tolist() for row in ids]
        return sl.contrast(
            {FIRST: list(map(written, ids)), SECOND: list(map(written, moved))}, aligned=True
        )

    def ids(self, split: str, *, clone: bool = False) -> list[list[int]]:
        """The tokens of each sentence, BOS before them."""
        bos = 2 * self.text.words
        rows = [torch.tensor(row) for row in self.text.splits[split]]
        return [[bos, *(self.swap[row] if clone else row).tolist()] for row in rows]

    @torch.inference_mode()
    def said(self, ids: Sequence[Sequence[int]], edit: Edit | None = None) -> Tensor:
        """The logits of the next token, [row pos word]; of a stack, all rows under its first edit,
        then all under its second."""
        copies = 1 if edit is None or edit.rows is None else edit.rows
        every = list(ids) * copies
        carries = [copy for copy in range(copies) for _ in ids]
        stacked = edit is not None and edit.rows is not None
        with rows_on(self.model, every, edit, carries=carries if stacked else None) as rows:
            logits, _ = rows.forward(range(len(every)), keep="all")
        return logits.float()


class Truth:
    """What a model should say of some sentences once it is steered: what it says by itself, each
    token moved.

    Args:
        bed: the model.
        split: which of its sentences.
    """

    def __init__(self, bed: Bed, split: str):
        self.bed = bed
        self.ids = bed.ids(split)
        _, mask = pad(self.ids, bed.model.padding, bed.model.device)
        self.text = mask & (mask.cumsum(1) > 1)  # neither padding nor BOS
        self.sentence = self.text.nonzero()[:, 0]
        self.count = self.text.sum(1)
        # Of each position of text.
        said = bed.said(self.ids)[self.text].log_softmax(-1)
        self.words = said[:, bed.swap.to(said.device)]
        self.shares = self.words.exp()
        self.entropy = -(self.shares * self.words).sum(-1)
        self.likeliest = self.words.argmax(-1)

    @torch.inference_mode()
    def nats(self, logits: Tensor) -> Tensor:
        """KL(truth || said) by sentence."""
        said = logits[self.text]
        return self._by_sentence(said.logsumexp(-1) - (self.shares * said).sum(-1) - self.entropy)

    @torch.inference_mode()
    def scores(self, logits: Tensor) -> dict[str, Tensor]:
        """By sentence: right, the share of positions whose likeliest token is the true one; mass,
        the probability on the clone; nats."""
        words, said = self.bed.text.words, logits[self.text].log_softmax(-1)
        return {
            "right": self._by_sentence((self.likeliest == said.argmax(-1)).float()).clamp(0, 1),
            # A sum of shares may be a little above 1, which no interval of shares takes.
            "mass": self._by_sentence(said[:, words : 2 * words].exp().sum(-1)).clamp(0, 1),
            "nats": self.nats(logits),
        }

    def _by_sentence(self, values: Tensor) -> Tensor:
        sums = torch.zeros(len(self.ids), device=values.device)
        return (sums.index_add_(0, self.sentence, values) / self.count).cpu()

    def of_edits(self, edits: Sequence[Edit]) -> list[float]:
        """The mean nats of each edit; as many at a time as there is room for."""
        together = max(1, TOGETHER // len(self.ids))
        found = []
        for start in range(0, len(edits), together):
            part = list(edits[start : start + together])
            edit = part[0] if len(part) == 1 else sl.stack(part)
            said = self.bed.said(self.ids, edit).split(len(self.ids))
            found += [self.nats(logits).mean() for logits in said]
        return torch.stack(found).tolist()


def directions_of(bed: Bed) -> tuple[dict[str, Directions], dict[str, list[float]]]:
    """Each estimator's directions, and how good the autoencoders are."""
    corpus = bed.corpus("estimate")
    names = sorted({name for name, *_ in VECTORS if name in VARIANTS})
    needs = sorted({need for name in names for need in VARIANTS[name].needs})
    moments: Moments = sl.collect(bed.model, corpus, also=needs, source=FIRST)
    made = {name: VARIANTS[name].fit(moments, source=FIRST) for name in names}
    made["random"] = sl.controls.random(made["diffmean"], seed=0, source=FIRST)
    saes, quality = train_saes(bed.model, bed.pairs, steps=bed.sae_steps)
    firing = sl.collect_units(bed.model, corpus, saes)
    made["sae diffmean"] = sae_diffmean(firing, saes)
    made["sae monolinguality"] = decoded(monolinguality(firing), firing, saes, source=None)
    more = firing.rate - firing.rate.flip(0)  # than in the other language
    chosen = torch.zeros_like(more, dtype=torch.bool)
    chosen.scatter_(-1, more.topk(FEATURES, dim=-1).indices, value=True)
    selection = selected("top latents", firing, chosen & (more > 0), more, {"top": FEATURES})
    made["sae top latents"] = decoded(selection, firing, saes, source=None)
    return made, quality


def mapped(h: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """The edit of a linear map."""
    return h @ tensors["matrix"] + tensors["shift"]


def maps_of(pairs: Aligned) -> dict[str, Callable[[int], Maps]]:
    """The linear maps between aligned positions, by name, each a function of the layer."""

    def of_rank(rank: int | None) -> Callable[[int], Maps]:
        return lambda layer: linear_map(pairs.first[layer], pairs.clone[layer], rank)

    def shuffled(layer: int) -> Maps:
        other = torch.randperm(
            pairs.clone.shape[1], generator=torch.Generator().manual_seed(layer)
        ).to(pairs.clone.device)
        return linear_map(pairs.first[layer], pairs.clone[layer][other])

    width = pairs.first.shape[-1]
    made = {f"map, a step of rank {rank}": of_rank(rank) for rank in RANKS if rank < width}
    made["map, a rotation"] = lambda layer: rotation_map(pairs.first[layer], pairs.clone[layer])
    made["map, any linear"] = of_rank(None)
    made["map, pairs shuffled"] = shuffled
    return made


def scored(bed: Bed) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """Each method at the layer and strength that are best on dev, on test; and how good the
    autoencoders are."""
    made, quality = directions_of(bed)
    dev, test = Truth(bed, "dev"), Truth(bed, "test")
    found: list[dict[str, Any]] = []

    def report(name: str, tried: Sequence[tuple[int, float | None]], edits: list[Edit]) -> None:
        if not edits:  # nothing stands for the clone at any layer
            found.append({"method": name} | summarised(test.scores(bed.said(test.ids))))
            return
        nats = dev.of_edits(edits)
        best = min(range(len(nats)), key=nats.__getitem__)
        layer, strength = tried[best]
        chosen: dict[str, Any] = {"method": name, "layer": layer, "dev": nats[best]}
        if strength is not None:
            grid = sorted({value for _, value in tried if value is not None})
            chosen |= {"strength": strength, "edge": strength in (grid[0], grid[-1])}
        else:
            chosen["by_layer"] = nats
        found.append(chosen | summarised(test.scores(bed.said(test.ids, edits[best]))))

    for name, operator, knob, grid in VECTORS:
        direction = made[name]
        tried, edits = [], []
        for layer in direction.where(SECOND, FIRST):
            at = direction.at(layer).between(FIRST, SECOND)
            for value in grid:
                try:
                    edits.append(getattr(sl.edits, operator)(at, **{knob: value}))
                except sl.SteerlabError:  # a quota above the axes that there are at this layer
                    continue
                tried.append((layer, value))
        report(f"{name}, {operator}", tried, edits)
    for name, function in maps_of(bed.pairs).items():
        layers = range(bed.model.n_layers)
        edits = [
            sl.edit(mapped, layer=layer, tensors=dataclasses.asdict(function(layer)), name=name)
            for layer in layers
        ]
        report(name, [(layer, None) for layer in layers], edits)
    found.append({"method": "unsteered"} | summarised(test.scores(bed.said(test.ids))))
    whole = test.scores(bed.said(bed.ids("test", clone=True)))
    found.append({"method": "the prompt in the clone itself"} | summarised(whole))
    return found, quality


def summarised(scores: Mapping[str, Tensor]) -> dict[str, Any]:
    """Means over sentences with their intervals."""
    count = len(next(iter(scores.values())))
    sentences = torch.arange(count).numpy()
    return {
        name: list(by_sentence(value.double().numpy(), sentences, share=name != "nats"))
        for name, value in scores.items()
    } | {"n": count}


def alignment(bed: Bed) -> list[dict[str, Any]]:
    """By layer: how alike a sentence and its clone are, centred by language, how often the clone is
    the nearest of all sentences, and how alike a token and its clone are."""
    vectors = text_means(bed.model, bed.corpus("test"))
    found = []
    for layer, (token, other) in enumerate(token_cosines(bed.pairs)):
        a, b = (torch.as_tensor(vectors[name][:, layer]).float() for name in (FIRST, SECOND))
        a, b = (torch.nn.functional.normalize(h - h.mean(0), dim=-1) for h in (a, b))
        cosines = a @ b.T
        hits = (cosines.argmax(1) == torch.arange(len(a)).to(cosines.device)).float()
        found.append(
            {
                "layer": layer,
                "cosine": float(cosines.diagonal().mean()),
                "shuffled": float(cosines.roll(1, 0).diagonal().mean()),
                "nearest": float(hits.mean()),
                "token": token,
                "other token": other,
            }
        )
    return found
