"""The strength that costs least among those that gain enough: how FOXP2 chooses λ and β."""

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
    texts: Sequence[str],
    words: Lexicon,
    *,
    source: str,
    target: str,
    share: float = 0.8,
    batch: int | None = None,
) -> tuple[Key, pd.DataFrame]:
    """(the key of the edit with the least KL among those that gain at least `share` of the best
    gain, a table of all).

    The gain is the mean over texts of Δ(M_target - M_source); masses and KL divergence (nats,
    steered from unsteered) are those after the texts' last token. The table has a row for each
    edit: key, gain, kl, enough, chosen. Raises where no edit gains anything. Give texts of `dev`:
    these numbers are for choosing. Source: Neural FOXP2 (arXiv 2602.00945), where the share is .8.
    """
    if not edits:
        raise SteerlabError("there is no edit to choose from; give at least one by its key")
    if not 0 < share <= 1:
        raise SteerlabError(
            f"share is {share}; give a share of the best gain above 0 and at most 1"
        )
    need_words(words, (source, target))
    masses = language_masses(model, texts, list(edits.values()), words, batch=batch)
    gained = masses.gain.mean(1)
    gain = gained[:, words.langs.index(target)] - gained[:, words.langs.index(source)]
    table = pd.DataFrame(
        {"key": list(edits), "gain": gain.numpy(), "kl": masses.kl.mean(1).numpy()}
    )
    best = table["gain"].max()
    if not best > 0:
        raise SteerlabError(
            f"none of these edits raises the mass of {target} over that of {source} (the best gain "
            f"is {best:.2g}); "
            "give others"
        )
    table["enough"] = table["gain"] >= share * best
    chosen = int(np.nanargmin(table["kl"].where(table["enough"]).to_numpy(float)))
    table["chosen"] = table.index == chosen
    return list(edits)[chosen], table
