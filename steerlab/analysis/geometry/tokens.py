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
    moments: Moments, texts: Mapping[str, Float[Tensor, "text layer width"]] | None = None
) -> pd.DataFrame:
    """How well the languages separate at each layer, by tokens and by whole texts.

    One row for each layer, with the columns layer; trace_ratio = Σ nₖ‖meanₖ - mean‖² / Σ‖h -
    meanₖ‖², the scatter of tokens between languages over that within; nearest_mean, the share of
    texts whose nearest language mean is their own; n, the number of texts. Without texts the last
    two are left out. Raises `SteerlabError` where the moments hold no scatter.

    Args:
        moments: of the languages, with scatter; the language means are its.
        texts: the mean activations of texts that the moments have not seen, by language.
    """
    within = moments.covariance().diagonal(dim1=-2, dim2=-1).sum(-1)
    share = (moments.count / moments.count.sum())[:, None, None]
    grand_mean = (share * moments.mean).sum(0)
    between = (share * (moments.mean - grand_mean).square()).sum((0, 2))
    rows = []
    for index, layer in enumerate(moments.layers):
        row: dict[str, float] = {
            "layer": layer,
            "trace_ratio": float(between[index] / within[index]),
        }
        rows.append(row)
        if texts is None:
            continue
        right = 0
        total = 0
        for lang_index, lang in enumerate(moments.langs):
            vectors = texts[lang][:, index].double()
            nearest = torch.cdist(vectors, moments.mean[:, index]).argmin(1)
            right += int((nearest == lang_index).sum())
            total += len(vectors)
        row |= {"nearest_mean": right / total, "n": total}
    return pd.DataFrame(rows)


def unigrams(corpus: Corpus, tokenizer: object) -> Float[np.ndarray, "lang vocab"]:
    """The relative frequencies of each language's tokens: what shared tokens alone say of
    kinship."""
    counts = np.zeros((len(corpus.langs), len(tokenizer)))  # type: ignore[arg-type]
    for index, lang in enumerate(corpus.langs):
        texts = tokenizer(list(corpus[lang]), add_special_tokens=False)  # type: ignore[operator]
        for ids in texts.input_ids:
            # `counts[index][ids] += 1` would count a token that occurs twice only once.
            np.add.at(counts[index], ids, 1)
    return counts / counts.sum(1, keepdims=True)
