"""Measure sparse autoencoders on text that they were not trained on, and write the tables of their
cards.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.analysis.intervals import by_sentence
from steerlab.core.languages import language
from steerlab.edits import Edit
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.prompts import encode, pad
from steerlab.models.model import Model
from steerlab.models.positions import Positions
from steerlab.sae import SAE

BATCH, CHUNK = 64, 4096
MEASURES = {
    "explained_variance": 3,
    "l0": 1,
    "loss_recovered": 3,
    "nats_lost": 3,
}  # with the digits shown


@dataclass(frozen=True)
class Text:
    """Held-out lines, as many of each language: `ids` with BOS, and of each line its language
    and count of tokens."""

    texts: list[str]
    ids: list[list[int]]
    lang: np.ndarray
    tokens: np.ndarray

    @property
    def langs(self) -> list[str]:
        """The codes of the languages."""
        return list(dict.fromkeys(self.lang.tolist()))

    def first(self, count: int) -> "Text":
        """The first lines of each language."""
        keep = np.concatenate([np.flatnonzero(self.lang == iso)[:count] for iso in self.langs])
        return Text(
            [self.texts[i] for i in keep],
            [self.ids[i] for i in keep],
            self.lang[keep],
            self.tokens[keep],
        )


@torch.inference_mode()
def states(
    model: Model, text: Text, places: Sequence[tuple[str, int]]
) -> tuple[dict[tuple[str, int], Tensor], Tensor]:
    """The activations of every token but BOS [token width] by place, and the line of each
    [token]."""
    found: dict[tuple[str, int], list[Tensor]] = {place: [] for place in places}
    owners: list[Tensor] = []
    order = sorted(range(len(text.ids)), key=lambda line: len(text.ids[line]))

    def keep(place: tuple[str, int]) -> Callable[[Tensor, Positions], None]:
        return lambda h, where: found[place].append(h[where.text].float().cpu())

    with model.attached([(*place, keep(place)) for place in places]):
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            ids, mask = pad(
                [text.ids[line] for line in chosen], model.tokenizer.pad_token_id, model.device
            )
            model.body(ids, mask.bool())
            owners += [torch.full((int(text.tokens[line]),), line) for line in chosen]
    return {place: torch.cat(parts) for place, parts in found.items()}, torch.cat(owners)


@torch.inference_mode()
def rebuilt(sae: SAE, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of reconstructions: the squared error [token], how many latents are on [token], how often
    each is [latent]."""
    errors, counts, used = [], [], torch.zeros(sae.latents)
    for part in h.split(CHUNK):
        z = sae.encode(part)
        errors.append((sae.decode(z) - part).square().sum(-1))
        counts.append((z > 0).sum(-1))
        used += (z > 0).sum(0)
    return torch.cat(errors), torch.cat(counts), used


def nats(
    model: Model, text: Text, place: tuple[str, int], new: Callable[[Tensor], Tensor] | None
) -> np.ndarray:
    """Nats of each line [line], with every token's vector but BOS's replaced at a place."""

    def change(h: Tensor, where: Positions) -> Tensor:
        return torch.where(where.text[..., None], new(h).to(h.dtype), h) if new else h

    with model.attached([(*place, change)]):
        mean = cross_entropy(model, text.texts, [Edit(())], batch=BATCH)[0]
    return mean.double().numpy() * text.tokens


def ratio(
    top: np.ndarray, bottom: np.ndarray, text: Text, iso: str | None = None
) -> tuple[float, float, float]:
    """Σ top / Σ bottom over lines [line], with the bootstrap interval of the linearised ratio,
    within languages."""
    chosen = text.lang == iso if iso else np.full(len(text.lang), True)
    top, bottom = top[chosen].astype(float), bottom[chosen].astype(float)
    value = top.sum() / bottom.sum()
    lines = np.flatnonzero(chosen)
    return by_sentence(
        value + (top - value * bottom) / bottom.mean(), lines, strata=text.lang[chosen]
    )


def by_line(values: Tensor, owners: Tensor, count: int) -> np.ndarray:
    return torch.zeros(count, dtype=torch.float64).index_add_(0, owners, values.double()).numpy()


def deviations(h: Tensor, owners: Tensor, groups: np.ndarray) -> np.ndarray:
    """Σ ‖h - mean‖² of each line [line], the mean that of the line's group."""
    _, group = np.unique(groups, return_inverse=True)
    of_token = torch.from_numpy(group)[owners]
    sums = torch.zeros(int(group.max()) + 1, h.shape[1], dtype=torch.float64).index_add_(
        0, of_token, h.double()
    )
    means = sums / of_token.bincount()[:, None]
    return by_line((h - means[of_token]).square().sum(-1), owners, len(groups))


def text_of(model: Model, lines: Mapping[str, Sequence[str]], most: int) -> Text:
    """The first lines of each language, as many as `most`."""
    texts = [line for of_lang in lines.values() for line in of_lang[:most]]
    lang = np.array([lang for lang, of_lang in lines.items() for _ in of_lang[:most]])
    ids = encode(model.tokenizer, texts)
    begins = len(model.begins["bos"])
    return Text(texts, ids, lang, np.array([len(row) - begins for row in ids]))


def measure(
    model: Model, text: Text, given: Mapping[str, SAE], *, spliced: int
) -> dict[str, dict[str, Any]]:
    """Every measure of each autoencoder, over all lines and for each language.

    Args:
        model: whose activations are rebuilt.
        text: what it reads.
        given: the autoencoders by any name.
        spliced: of how many lines a language the model runs on rebuilt activations.
    """
    places = sorted({(sae.site, sae.layer) for sae in given.values()})
    activations, owners = states(model, text, places)
    run = text.first(spliced)
    clean = nats(model, run, places[0], None)
    zeroed = {place: nats(model, run, place, torch.zeros_like) for place in places}
    found = {}
    for name, sae in given.items():
        sae.need(model)
        h, zero = activations[sae.site, sae.layer], zeroed[sae.site, sae.layer]
        errors, counts, used = rebuilt(sae, h)
        error, on = (by_line(values, owners, len(text.texts)) for values in (errors, counts))
        spread, own = (
            deviations(h, owners, groups) for groups in (np.zeros(len(text.texts)), text.lang)
        )
        roundtrip = lambda h, sae=sae: sae.decode(sae.encode(h))  # noqa: E731
        put_back = nats(model, run, (sae.site, sae.layer), roundtrip)
        trained_as = sae.about["metadata"].get("training_architecture", sae.kind)
        row: dict[str, Any] = {
            "kind": sae.kind,
            "trained_as": trained_as,
            "site": sae.site,
            "layer": sae.layer,
            "digest": sae.digest,
        }
        row |= {"latents": sae.latents, "dead": int((used == 0).sum())}
        row |= {
            "nats_clean": float(clean.sum() / run.tokens.sum()),
            "nats_zeroed": float(zero.sum() / run.tokens.sum()),
        }
        sums = {
            "explained_variance": (spread - error, spread, text),
            "l0": (on, text.tokens, text),
            "loss_recovered": (zero - put_back, zero - clean, run),
            "nats_lost": (put_back - clean, run.tokens, run),
        }
        row |= {told: ratio(*parts) for told, parts in sums.items()}
        sums["explained_variance"] = (own - error, own, text)
        row["languages"] = {
            iso: {told: ratio(*parts, iso) for told, parts in sums.items()} for iso in text.langs
        }
        found[name] = row
    return found


def triple(value: Sequence[float], digits: int) -> str:
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def table(found: Mapping[str, Mapping[str, Any]], first: str) -> str:
    """A row for each autoencoder, all languages together."""
    rows = [
        f"| {first} | explained variance | L0 | dead of all latents | loss recovered | nats per "
        "token lost |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        shown = {measure: triple(row[measure], digits) for measure, digits in MEASURES.items()}
        cells = [
            name,
            shown["explained_variance"],
            shown["l0"],
            f"{row['dead']:,} of {row['latents']:,}",
        ]
        rows.append("| " + " | ".join([*cells, shown["loss_recovered"], shown["nats_lost"]]) + " |")
    return "\n".join(rows)


def languages(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each language: median of the layers, and the worst layer, of each measure."""
    rows = [
        "| language | explained variance | L0 | loss recovered | nats per token lost |",
        "|---|---|---|---|---|",
    ]
    for iso in next(iter(found.values()))["languages"]:
        name = language(iso).name
        cells = []
        for told, digits in MEASURES.items():
            values = [row["languages"][iso][told][0] for row in found.values()]
            cells.append(
                f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to "
                f"{max(values):.{digits}f})"
            )
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def stored(folder: Path) -> tuple[int, str]:
    """The tokens that an autoencoder was trained on, and its weights' precision."""
    from safetensors import safe_open

    told = json.loads((folder / "cfg.json").read_text("utf-8"))["metadata"]
    with safe_open(folder / "sae_weights.safetensors", "pt") as opened:
        return int(told.get("training_tokens") or 0), str(opened.get_slice("W_enc").get_dtype())
