"""Which layer and strength stand for a method: chosen on dev, once for each method or for each
of its languages too."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steerlab.analysis.sentences import expanded_tails
from steerlab.core.columns import is_share, score_records
from steerlab.core.errors import SteerlabError

SETTING = ["layer", "strength"]

Setting = tuple[int, float]


def choose(dev: pd.DataFrame, value: str = "joint") -> dict[str, Setting]:
    """The best (layer, strength) of each method on dev rows.

    In a race, settings that were dropped early have read fewer lines; only those that read the
    most are compared. Raises `SteerlabError` for rows of another split, and for a score that they
    do not have.

    Args:
        dev: rows of the dev split.
        value: the column of the score that is best: one of ours, or of a user's `scorers`.
    """
    need_score(dev, value)
    # A choice made on the lines that are reported would report its own luck.
    if set(dev["split"]) != {"dev"}:
        raise SteerlabError(
            f"a choice is made on dev rows only, not on {sorted(set(dev['split']))}"
        )
    return {str(method): ranking(rows, value)[0] for method, rows in whole(dev).groupby("method")}


def choose_each(
    dev: pd.DataFrame, by: str = "target", value: str = "joint"
) -> dict[str, dict[str, Setting]]:
    """The best (layer, strength) of each method for each value of a column, such as the target.

    The result is nested, method → value of the column → setting. Raises `SteerlabError` for a
    missing column and for rows of another split.

    Args:
        dev: rows of the dev split.
        by: the column for each of whose values there is a choice.
        value: the column of the score that is best, as in `choose`.
    """
    need_column(dev, by)
    chosen: dict[str, dict[str, Setting]] = {}
    for name, rows in dev.groupby(by):
        for method, setting in choose(rows, value).items():
            chosen.setdefault(method, {})[str(name)] = setting
    return chosen


def need_column(rows: pd.DataFrame, name: str) -> None:
    """Raise `SteerlabError` if the rows have no such column."""
    if name not in rows.columns:
        raise SteerlabError(
            f"there is no column {name!r} to choose by; the rows have {', '.join(rows.columns)}"
        )


def need_score(rows: pd.DataFrame, value: str) -> None:
    """Raise `SteerlabError` if the rows have no such column, or no numbers in it."""
    numbers = [
        str(name)
        for name in rows.columns
        if pd.api.types.is_numeric_dtype(rows[name]) and name not in (*SETTING, "sentence", "draw")
    ]
    if value not in numbers:
        raise SteerlabError(
            f"the rows have no score {value!r}; their numbers are {', '.join(numbers)}"
        )


def less_is_better(value: str) -> bool:
    """Whether a score is read downwards, by its record; one of a user's own is read upwards."""
    record = score_records().get(value)
    return record is not None and record.higher_is_better is False


def reads_as_share(rows: pd.DataFrame, value: str) -> bool:
    """Whether a score is a share: by its record, or zeros and ones in all rows of a user's own.

    It is asked of all rows, so that every line of a table has one kind of interval.
    """
    known = is_share(value)
    return bool(rows[value].dropna().isin([0, 1]).all()) if known is None else known


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of those settings that read as many lines as any setting of their method."""
    # A mean over fewer lines is luckier: the best of many settings would often be one of these.
    lines = rows.groupby(["method", *SETTING])["joint"].transform("size")
    most = lines.groupby(rows["method"]).transform("max")
    return rows[lines == most]


def ranking(rows: pd.DataFrame, value: str = "joint") -> list[Setting]:
    """One method's settings by the mean of a score, best first.

    Outputs that have no such score count for nothing, and a setting none of whose outputs has one
    comes last. Ties go to the larger share of outputs in the language, then to the smaller dose.

    Args:
        rows: of one method.
        value: the column of the score.
    """
    columns = list(dict.fromkeys([value, "in_language", "dose"]))
    means = rows.groupby(SETTING)[columns].mean().reset_index()
    upwards = {value: less_is_better(value), "dose": True}
    best = means.sort_values(columns, ascending=[upwards.get(name, False) for name in columns])
    return [(int(layer), float(strength)) for layer, strength in best[SETTING].to_numpy()]


def at(rows: pd.DataFrame, method: str, setting: Setting) -> pd.DataFrame:
    """A method's rows at one layer and strength."""
    layer, strength = setting
    return rows[
        (rows["method"] == method) & (rows["layer"] == layer) & (rows["strength"] == strength)
    ]


def at_each(
    rows: pd.DataFrame, method: str, settings: Mapping[str, Setting], by: str = "target"
) -> pd.DataFrame:
    """A method's rows, those of each value of a column at that value's own layer and strength.

    Raises `SteerlabError` for a missing column.

    Args:
        rows: rows of any methods and settings.
        method: the one whose rows are wanted.
        settings: the (layer, strength) of each value of the column.
        by: the column.
    """
    need_column(rows, by)
    return pd.concat(
        [at(rows[rows[by] == value], method, setting) for value, setting in settings.items()]
    )


def held_out(dev: pd.DataFrame, *, folds: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a choice is worth, estimated without test lines: cross-validation by sentence.

    Returns the rows of all methods at (one choice for each method, one choice for each method and
    target). The sentences of dev are dealt into `folds`; the rows of each fold are taken at the
    settings chosen on the other folds, so that no row had a part in its own choice.
    """
    per_method: list[pd.DataFrame] = []
    per_target: list[pd.DataFrame] = []
    for others, own in _folds(whole(dev), folds):
        each = choose_each(others)
        for method, setting in choose(others).items():
            per_method.append(at(own, method, setting))
            per_target.append(at_each(own, method, each[method]))
    return pd.concat(per_method), pd.concat(per_target)


def halves(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the one and of the other half of the sentences, dealt in turn.

    Raises `SteerlabError` for fewer than two sentences.
    """
    return next(_folds(rows, 2))


@dataclass(frozen=True)
class Stability:
    """How far a method's score at its chosen setting hangs on the lines that chose it.

    Args:
        setting: the (layer, strength) chosen on all of dev.
        same: the share of resamples of dev in which it is chosen again.
        picks: the share of each setting that was chosen, most often first.
        value: the mean score on test at the setting.
        low: the lower end of its interval with the choice inside.
        high: the upper end.
    """

    setting: Setting
    same: float
    picks: dict[Setting, float]
    value: float
    low: float
    high: float


def choice_stability(
    dev: pd.DataFrame,
    test: pd.DataFrame,
    method: str,
    *,
    value: str = "joint",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Stability:
    """How often resampled dev lines choose the same setting, and the interval of the score on test
    with that choice inside.

    An interval at a fixed setting is that of the setting. This one is that of the procedure "choose
    on dev, read on test": each resample draws dev sentences, chooses by `ranking`'s rule, draws
    test sentences and reads them at the setting it chose (a percentile interval, its tails widened
    as those of `intervals`). It is centred where the procedure is, which may be below the value: a
    resample of dev often chooses a worse setting. So test must have been read at every setting that
    may be chosen.

    Raises `SteerlabError` for dev rows of another split, for a method without rows, for fewer than
    two sentences on either side, and for test rows that lack a setting that was chosen.

    Args:
        dev: rows of the dev split, of any methods.
        test: rows of other lines, with the method at its settings.
        method: whose choice it is.
        value: the column of the score on test.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    if method not in set(dev["method"]):
        raise SteerlabError(
            f"no dev rows of {method!r}; there are rows of "
            f"{', '.join(sorted(set(dev['method']))) or 'no method'}"
        )
    setting = choose(dev[dev["method"] == method])[method]
    random = np.random.default_rng(seed)
    settings, chosen = _picked(whole(dev[dev["method"] == method]), resamples, random)
    shares = np.bincount(chosen, minlength=len(settings)) / resamples
    order = np.argsort(-shares, kind="stable")
    picks = {settings[i]: float(shares[i]) for i in order if shares[i] > 0}
    own = test[test["method"] == method]
    missing = [pick for pick in (*picks, setting) if at(own, method, pick).empty]
    if missing:
        raise SteerlabError(
            f"test rows of {method!r} lack {len(missing)} settings that dev may choose, such as "
            f"layer {missing[0][0]} at strength {missing[0][1]:g}: read test at them too"
        )
    sums, counts = _by_sentence(own, settings, value)
    times = _times(random, len(sums), resamples)
    draw = np.arange(resamples)
    drawn = (times @ sums)[draw, chosen] / np.maximum((times @ counts)[draw, chosen], 1)
    low, high = np.quantile(drawn, expanded_tails(len(sums), 1, level))
    return Stability(
        setting=setting,
        same=float(shares[settings.index(setting)]),
        picks=picks,
        value=float(at(own, method, setting)[value].mean()),
        low=float(low),
        high=float(high),
    )


def _picked(
    rows: pd.DataFrame, resamples: int, random: np.random.Generator
) -> tuple[list[Setting], Int[np.ndarray, " draw"]]:
    """The settings of one method's rows, and the index of each draw's best one."""
    settings = sorted(ranking(rows))
    joint, counts = _by_sentence(rows, settings, "joint")
    spoken, _ = _by_sentence(rows, settings, "in_language")
    times = _times(random, len(joint), resamples)
    lines = times @ counts
    # Sums of the same numbers round differently, which must not break a tie.
    means = np.round(times @ joint / lines, 12)
    means_spoken = np.round(times @ spoken / lines, 12)
    by_setting = rows.groupby(SETTING)["dose"].mean()
    doses = np.array([by_setting[setting] for setting in settings])
    # `ranking`'s order: most joint, then most in the language, then the least dose.
    order = np.lexsort((np.broadcast_to(doses, means.shape), -means_spoken, -means), axis=-1)
    return settings, order[:, 0]


def _by_sentence(
    rows: pd.DataFrame, settings: Sequence[Setting], value: str
) -> tuple[Float[np.ndarray, "sentence setting"], Float[np.ndarray, "sentence setting"]]:
    """The sum of a score and the number of rows of each sentence at each setting."""
    keyed = rows.assign(score=rows[value].astype(float))
    table = keyed.groupby(["sentence", *SETTING])["score"].agg(["sum", "count"])
    sums = table["sum"].unstack(SETTING, fill_value=0)
    counts = table["count"].unstack(SETTING, fill_value=0)
    # A setting that these rows lack has zeros.
    columns = pd.MultiIndex.from_tuples(settings, names=SETTING)
    return (
        sums.reindex(columns=columns, fill_value=0).to_numpy(float),
        counts.reindex(columns=columns, fill_value=0).to_numpy(float),
    )


def _times(
    random: np.random.Generator, count: int, resamples: int
) -> Float[np.ndarray, "draw sentence"]:
    """How often each draw takes each sentence."""
    if count < 2:
        raise SteerlabError(
            f"resampling needs two sentences or more on dev and on test; one side has {count}"
        )
    return random.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)


def _folds(rows: pd.DataFrame, folds: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """For each fold, (the rows of all other sentences, the fold's own rows).

    Sentences are dealt in turn, so that neighbours, which may share a topic, lie in different
    folds.
    """
    sentences = np.unique(rows["sentence"])
    if not 2 <= folds <= len(sentences):
        raise SteerlabError(
            f"{len(sentences)} sentences cannot be dealt into {folds} folds; give 2 folds or more, "
            "and a sentence for each"
        )
    for fold in range(folds):
        own = rows["sentence"].isin(sentences[fold::folds])
        yield rows[~own], rows[own]
