"""External axes: directions along which scores of words grow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import regex  # type: ignore[import-untyped]
import torch
from sklearn.decomposition import FastICA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.word_vectors import WordVectors

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)


def axis(
    words: WordVectors,
    scores: Mapping[str, float],
    *,
    held_out: float = 0.2,
    published: bool = False,
    seed: int = 0,
) -> Directions:
    """The direction of each layer along which a score of words grows, from `low` to `high`.

    Ridge regression of the score on the standardised mean vectors of word types, the penalty chosen
    among .1 to 1000 by leave-one-out; `settings["r"]` has the correlation at each layer over the
    word types held out. The vector is the gradient of the fit, coefficients over deviations; with
    `published`, coefficients times deviations, as the released code has it. The means of `low` and
    `high` are those of the words below and above the median score, so that strength 1 is the gap
    between them. Source: Brain-Grounded Axes (arXiv 2512.19399), whose scores come from MEG; a fair
    control is an axis of log frequency, with no recording.

    Raises `SteerlabError` where fewer than 10 words have a score and a vector, where scores are all
    one, and for NaN.

    Args:
        words: of `collect_words`.
        scores: of each word, whatever its capitals.
        held_out: the share of word types that the correlation is of.
        published: the vector as released code makes it.
        seed: which word types are held out.
    """
    by_word = {str(word).lower(): float(value) for word, value in scores.items()}
    both = [number for number, word in enumerate(words.words) if word in by_word]
    if len(both) < 10:
        raise SteerlabError(
            f"{len(both)} of {len(by_word)} words with a score were read; an axis needs 10 or more"
        )
    y = np.array([by_word[words.words[number]] for number in both])
    if not np.isfinite(y).all():
        raise SteerlabError("the scores hold NaN or infinity; leave such words out")
    if len(np.unique(y)) < 2:
        raise SteerlabError("all words have one score; there is no axis")
    if not 0 < held_out < 1:
        raise SteerlabError(f"held_out is {held_out}; give a share between 0 and 1")
    vectors, found = [], []
    x = words.vectors[both].double()
    train, test = train_test_split(np.arange(len(y)), test_size=held_out, random_state=seed)
    for layer in range(len(words.layers)):
        vector, r = _fit(x[:, layer].numpy(), y, train, test, published=published)
        vectors.append(vector)
        found.append(r)
    high = torch.tensor(y > np.median(y)) if (y > np.median(y)).any() else torch.tensor(y > y.min())
    means = torch.stack([x[~high].mean(0), x[high].mean(0)])
    slope = torch.tensor(np.stack(vectors))
    unit = slope / slope.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return Directions(
        torch.stack([-unit / 2, unit / 2]).float(),
        torch.stack([-unit, unit])[:, :, None].float(),
        means.float(),
        ("low", "high"),
        words.layers,
        words.site,
        provenance={
            **words.provenance,
            "estimator": "axis",
            "settings": {"words": len(y), "r": found, "published": published},
        },
    )


def _fit(
    x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, *, published: bool
) -> tuple[np.ndarray, float]:
    """The vector of a layer, and the correlation over the words held out."""
    scaler = StandardScaler().fit(x[train])
    ridge = RidgeCV(alphas=ALPHAS).fit(scaler.transform(x[train]), y[train])
    predicted = ridge.predict(scaler.transform(x[test]))
    r = 0.0
    if len(test) > 1 and predicted.std() > 0 and y[test].std() > 0:
        r = float(np.corrcoef(predicted, y[test])[0, 1])
    scale = scaler.scale_
    return (ridge.coef_ * scale if published else ridge.coef_ / scale), r


def read_axes(file: str | Path) -> pd.DataFrame:
    """A user's table of words and axes: CSV or TSV whose first column is the word, the others one
    axis each.

    Raises `SteerlabError` for a file that is not there, a word that stands twice, no axis, and what
    is no number.
    """
    file = Path(file)
    if not file.is_file():
        raise SteerlabError(f"there is no file {file}; give a CSV of words and axes")
    try:
        table = pd.read_csv(file, sep="\t" if file.suffix == ".tsv" else ",", dtype=str)
    except (ValueError, UnicodeDecodeError) as error:
        raise SteerlabError(f"{file} is no table ({error}); give CSV") from error
    if table.shape[1] < 2 or table.empty:
        raise SteerlabError(f"{file} has {table.shape[1]} columns; give a word and its axes")
    words = table.iloc[:, 0].astype(str).str.lower()
    if words.duplicated().any():
        raise SteerlabError(f"{file}: {words[words.duplicated()].iloc[0]!r} stands twice")
    try:
        numbers = table.iloc[:, 1:].astype(float)
    except ValueError as error:
        raise SteerlabError(f"{file}: {error}; the axes are numbers") from error
    if numbers.isna().any().any():
        raise SteerlabError(f"{file} has a word without a number; leave it out")
    numbers.index = pd.Index(words, name="word")
    return numbers


def independent(
    table: pd.DataFrame, *, components: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Independent components of several scores of words, by FastICA; one column each.

    Args:
        table: a row for each word, a column for each score.
        components: how many; by default as many as scores.
        seed: of the start.
    """
    count = min(table.shape) if components is None else components
    if not 1 <= count <= min(table.shape):
        raise SteerlabError(
            f"{count} components of {table.shape[1]} scores of {len(table)} words; give 1 to "
            f"{min(table.shape)}"
        )
    ica = FastICA(n_components=count, random_state=seed, whiten="unit-variance", max_iter=1000)
    found = ica.fit_transform(table.to_numpy(float))
    return pd.DataFrame(found, index=table.index, columns=[f"component {n}" for n in range(count)])


def log_frequency(texts: Sequence[str], *, least: int = 2) -> dict[str, float]:
    """The log of how often each word stands in texts, of those that stand there `least` times: an
    axis that needs no recording."""
    words = pd.Series([word.lower() for text in texts for word in _words(text)])
    counts = words.value_counts()
    counts = counts[counts >= least]
    if counts.empty:
        raise SteerlabError(f"no word stands {least} times in the texts; give more texts")
    return {str(word): float(np.log(count)) for word, count in counts.items()}


def _words(text: str) -> list[str]:
    return [str(word) for word in regex.findall(r"\p{L}+(?:['’-]\p{L}+)*", text)]
