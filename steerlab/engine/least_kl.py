"""The choice of a strength: of those that gain enough, the one that changes the model least; so
FOXP2 chooses λ and β."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit
from steerlab.engine.language_mass import Lexicon, language_masses
from steerlab.engine.requirements import need_words

Key = TypeVar("Key", bound=Hashable)


def least_kl(
    model: Any,
    edits: Mapping[Key, Edit],
    texts: str | Sequence[str],
    words: Lexicon,
    *,
    source: str,
    target: str,
    share: float = 0.8,
    batch: int | None = None,
) -> tuple[Key, pd.DataFrame]:
    """Choose the edit with the least KL divergence among those that gain enough: its key, and a
    table of all edits.

    The gain is the mean over texts of Δ(M_target - M_source), the change of the language masses;
    these and the KL divergence (nats, steered from unsteered) are those after a text's last token.
    The table has a row for each edit: `key`, `gain`, `kl`, `enough`, `chosen`. Raises
    `SteerlabError` where no edit gains anything. Source: Neural FOXP2 (arXiv 2602.00945).

    Args:
        model: what `load` takes.
        edits: the edits to choose from, such as one edit at several strengths, by any key.
        texts: prompts, or one; they should be of `dev`, as these numbers are for choosing.
        words: which tokens are each language's own.
        source: the code of the language to steer away from.
        target: the code of the language to steer to.
        share: of the best gain, how much is enough; .8 in the paper.
        batch: the most rows that run together; by default as many as memory advises.
    """
    if not edits:
        raise SteerlabError("there is no edit to choose from; give at least one by its key")
    if not 0 < share <= 1:
        raise SteerlabError(
            f"share is {share}; give a share of the best gain above 0 and at most 1"
        )
    need_words(words, (source, target))
    masses = language_masses(model, texts, list(edits.values()), words, batch=batch)
    gain_by_lang = masses.gain.mean(1)  # over texts
    of_target = gain_by_lang[:, words.langs.index(target)]
    of_source = gain_by_lang[:, words.langs.index(source)]
    gain = of_target - of_source
    kl = masses.kl.mean(1)
    table = pd.DataFrame({"key": list(edits), "gain": gain.numpy(), "kl": kl.numpy()})
    best = table["gain"].max()
    if not best > 0:  # not `<=`, so that NaN is refused too
        raise SteerlabError(
            f"none of these edits raises the mass of {target} over that of {source} (the best gain "
            f"is {best:.2g}); "
            "give others, such as larger strengths"
        )
    table["enough"] = table["gain"] >= share * best
    # KL is NaN where the gain is not enough, and `nanargmin` passes over NaN.
    candidates = table["kl"].where(table["enough"])
    chosen = int(np.nanargmin(candidates.to_numpy(float)))
    table["chosen"] = table.index == chosen
    return list(edits)[chosen], table
