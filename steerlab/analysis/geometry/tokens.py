"""How well languages separate token by token, and what shared tokens alone say of kinship."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.moments import Moments


def separation(
    moments: Moments, texts: Mapping[str, Float[Tensor, "text layer width"]]
) -> pd.DataFrame:
    """By layer: between/within trace ratio of tokens, and nearest-mean accuracy of whole, unseen
    texts.

    `trace_ratio` = Σ nₖ‖meanₖ - mean‖² / Σ‖h - meanₖ‖²; `nearest_mean` = share of `texts` (their
    mean vector) whose nearest language mean, less the mean of all, is their own. Needs `scatter`.
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
        rows.append(
            {"layer": layer, "trace_ratio": ratio, "nearest_mean": right / total, "n": total}
        )
    return pd.DataFrame(rows)


def unigrams(corpus: Corpus, tokenizer: object) -> Float[np.ndarray, "lang vocab"]:
    """Relative frequencies of each language's tokens: what shared tokens alone say of kinship."""
    counts = np.zeros((len(corpus.langs), len(tokenizer)))  # type: ignore[arg-type]
    for row, iso in enumerate(corpus.langs):
        for ids in tokenizer(list(corpus[iso]), add_special_tokens=False).input_ids:  # type: ignore[operator]
            np.add.at(counts[row], ids, 1)
    return counts / counts.sum(1, keepdims=True)
