"""How languages lie to one another: how well they separate, which are neighbours, and whether that is chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.corpora import Corpus
from steerlab.stats import Moments
from steerlab.terms import SteerlabError, families, language


def separation(moments: Moments, texts: Mapping[str, Float[Tensor, "text layer width"]]) -> pd.DataFrame:
    """By layer: between/within trace ratio of tokens, and nearest-mean accuracy of whole, unseen texts.

    `trace_ratio` = Σ nₖ‖meanₖ - mean‖² / Σ‖h - meanₖ‖²; `nearest_mean` = share of `texts` (their mean vector) whose
    nearest language mean, less the mean of all, is their own. Needs `scatter`.
    """
    within = moments.covariance().diagonal(dim1=-2, dim2=-1).sum(-1)
    share = (moments.count / moments.count.sum())[:, None, None]
    between = (share * (moments.mean - (share * moments.mean).sum(0)).square()).sum((0, 2))
    rows = []
    for place, layer in enumerate(moments.layers):
        right = total = 0
        for lang, iso in enumerate(moments.langs):
            distances = torch.cdist(texts[iso][:, place].double(), moments.mean[:, place])
            right += int((distances.argmin(1) == lang).sum())
            total += len(texts[iso])
        ratio = float(between[place] / within[place])
        rows.append({"layer": layer, "trace_ratio": ratio, "nearest_mean": right / total, "n": total})
    return pd.DataFrame(rows)


def neighbours(vectors: Float[np.ndarray, "lang width"]) -> Int[np.ndarray, " lang"]:
    """The nearest other language of each, by the cosine of vectors centred over these languages."""
    centred = vectors - vectors.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-30)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return cosine.argmax(1)


@dataclass(frozen=True)
class Kinship:
    """1-nearest-neighbour family accuracy by layer, over languages whose family has another member here.

    `p` compares the best layer with the best layer of each permutation of the family labels; `null` is the 95th
    percentile of that.
    """

    layers: tuple[int, ...]
    accuracy: tuple[float, ...]
    p: float
    null: float
    n: int

    @property
    def best(self) -> int:
        """The place of the best layer, the earliest of equals."""
        return int(np.argmax(self.accuracy))


def kinship(
    vectors: Float[np.ndarray, "layer lang width"],
    langs: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    permutations: int = 20_000,
    seed: int = 0,
) -> Kinship:
    """Do a language's neighbours belong to its family, more than labels dealt at random would?

    The p-value is corrected for the choice of the layer: each permutation takes its own maximum over layers.
    """
    names = np.unique(families(langs), return_inverse=True)[1]
    near = np.stack([neighbours(v) for v in vectors])
    random = np.random.default_rng(seed)
    labels = np.stack([names, *(random.permutation(names) for _ in range(permutations))])
    has_kin = np.array([(names == name).sum() > 1 for name in names])
    if not have_kin(langs):
        raise SteerlabError(f"no two of {' '.join(langs)} share a family; add relatives")
    with_kin = np.isin(labels, names[has_kin])
    hits = np.stack([(labels[:, row] == labels) & with_kin for row in near], 1).sum(-1) / has_kin.sum()
    best = hits.max(1)
    return Kinship(
        tuple(range(len(vectors)) if layers is None else layers),
        tuple(hits[0].tolist()),
        float((1 + (best[1:] >= best[0]).sum()) / (1 + permutations)),
        float(np.quantile(best[1:], 0.95)),
        int(has_kin.sum()),
    )


def have_kin(langs: Sequence[str]) -> bool:
    """Whether any two of the languages share a family, so that `kinship` can be asked."""
    return len(set(families(langs))) < len(langs)


def within_script(langs: Sequence[str], script: str = "Latn") -> list[int]:
    """The places of the languages written in one script."""
    return [i for i, iso in enumerate(langs) if language(iso).script == script]


def unigrams(corpus: Corpus, tokenizer: object) -> Float[np.ndarray, "lang vocab"]:
    """Relative frequencies of each language's tokens: what shared tokens alone say of kinship."""
    counts = np.zeros((len(corpus.langs), len(tokenizer)))  # type: ignore[arg-type]
    for row, iso in enumerate(corpus.langs):
        for ids in tokenizer(list(corpus[iso]), add_special_tokens=False).input_ids:  # type: ignore[operator]
            np.add.at(counts[row], ids, 1)
    return counts / counts.sum(1, keepdims=True)
