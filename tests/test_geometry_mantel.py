"""Mantel's test finds a planted distance, tells family from script, and keeps its error rate."""

from collections.abc import Sequence

import numpy as np
import pytest
from kin_vectors import LANGS, square, vectors
from scipy.stats import kstest, pearsonr, spearmanr
from sklearn.linear_model import LinearRegression

from steerlab.analysis.geometry import (
    cosine_matrices,
    mantel,
    regression,
)
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families

# ------------------------------------------------------------------------------------------- Mantel


def same(labels: Sequence[object]) -> np.ndarray:
    return (np.asarray(labels)[:, None] != np.asarray(labels)).astype(float)


def test_mantel_r_is_the_correlation_over_pairs() -> None:
    random = np.random.default_rng(0)
    of, other = square(random.standard_normal((3, 9, 4))), square(random.standard_normal((9, 2)))
    pair = np.triu_indices(9, 1)
    for rank, statistic in ((False, pearsonr), (True, spearmanr)):
        table = mantel(of, {"other": other}, rank=rank, permutations=20)
        assert table["r"].tolist() == pytest.approx(
            [statistic(m[pair], other[pair]).statistic for m in of]
        )
    assert table[["n", "pairs"]].drop_duplicates().to_numpy().tolist() == [[9, 36]]


def test_partial_r_is_the_correlation_of_residuals() -> None:
    random = np.random.default_rng(1)
    of, x, z = (
        square(random.standard_normal((2, 10, 4))),
        *square(random.standard_normal((2, 10, 2))),
    )
    pair = np.triu_indices(10, 1)
    table = mantel(of, {"x": x}, given={"z": z}, permutations=20)
    for place in range(2):
        a, b, c = of[place][pair], x[pair], z[pair]
        ab, ac, bc = pearsonr(a, b).statistic, pearsonr(a, c).statistic, pearsonr(b, c).statistic
        assert table["r"].iloc[place] == pytest.approx(
            (ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2))
        )


def test_mantel_finds_a_planted_distance_and_not_a_shuffled_one() -> None:
    given = vectors(0, layers=2, kin=3.0)
    apart = 1 - cosine_matrices(given)
    order = np.random.default_rng(0).permutation(len(LANGS))
    kin = same(families(LANGS))
    table = mantel(apart, {"family": kin, "shuffled": kin[np.ix_(order, order)]}, permutations=499)
    found = table.set_index(["layer", "distance"])
    kept, lost = (found.xs(name, level="distance") for name in ("family", "shuffled"))
    assert kept["p_corrected"].tolist() == [1 / 500] * 2
    assert (lost["p"] > 0.05).all()
    assert (found["r"] > found["critical"]).tolist() == [True, False, True, False]


def test_mantel_p_is_uniform_under_the_null() -> None:
    random = np.random.default_rng(0)
    found = []
    for seed in range(200):
        of, other = (
            square(random.standard_normal((1, 10, 3))),
            square(random.standard_normal((10, 3))),
        )
        found.append(mantel(of, {"other": other}, permutations=99, seed=seed)["p"].iloc[0])
    assert kstest(np.array(found) - 0.005, "uniform").pvalue > 0.01
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.1


def test_correction_holds_over_layers_and_distances_and_is_needed() -> None:
    random = np.random.default_rng(1)
    alone, corrected = [], []
    for seed in range(120):
        of = square(random.standard_normal((4, 10, 3)))
        others = {str(k): square(random.standard_normal((10, 3))) for k in range(4)}
        table = mantel(of, others, permutations=99, seed=seed)
        alone.append(table["p"].min())
        corrected.append(table["p_corrected"].min())
    assert np.mean(np.array(corrected) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    assert np.mean(np.array(alone) <= 0.05) > 0.25


SCRIPTS = list("aaaabbaabbccddee")  # overlaps with the families of LANGS, and cuts across them


def planted_by(labels: Sequence[object], seed: int) -> np.ndarray:
    """Cosine distances [1 lang lang] of vectors that share a part wherever they share a label."""
    random = np.random.default_rng(seed)
    places = np.unique(np.asarray(labels), return_inverse=True)[1]
    parts = random.standard_normal((places.max() + 1, 30))
    return np.asarray(
        1 - cosine_matrices((random.standard_normal((len(labels), 30)) + 1.5 * parts[places])[None])
    )


@pytest.mark.parametrize("cause", ["family", "script"])
def test_partial_mantel_tells_family_from_script(cause: str) -> None:
    """Alone both go with what only one of them made; given the other, the idle one is at chance."""
    words = {"family": families(LANGS), "script": SCRIPTS}
    others, idle = (
        {name: same(given) for name, given in words.items()},
        "script" if cause == "family" else "family",
    )
    alone, partial, caused = [], [], []

    def p_of(of: np.ndarray, name: str, given: str, seed: int) -> float:
        told = {"given": {given: others[given]}, "within": words[given]}
        found = mantel(of, {name: others[name]}, **told, permutations=99, seed=seed)  # type: ignore[arg-type]
        return float(found["p"].iloc[0])

    for seed in range(80):
        of = planted_by(words[cause], seed)
        alone.append(mantel(of, {idle: others[idle]}, permutations=99, seed=seed)["p"].iloc[0])
        partial.append(p_of(of, idle, cause, seed))
        caused.append(p_of(of, cause, idle, seed))
    assert np.mean(np.array(caused) <= 0.05) > 0.7
    assert np.mean(np.array(alone) <= 0.05) > 0.5, "or there were nothing to tell apart"
    assert np.mean(np.array(partial) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 80)


def test_partial_mantel_without_groups_finds_too_much_among_families() -> None:
    """Why `within` is there: the clusters of families are no noise that languages exchange
    (Guillot and Rousset)."""
    others, free = {"family": same(families(LANGS)), "script": same(SCRIPTS)}, []
    for seed in range(60):
        table = mantel(
            planted_by(families(LANGS), seed), others, given=others, permutations=99, seed=seed
        )
        free.append(table.set_index("distance")["p"]["script"])
    assert np.mean(np.array(free) <= 0.05) > 0.12


def test_within_groups_only_their_languages_change_places() -> None:
    random = np.random.default_rng(0)
    of, groups = square(random.standard_normal((1, 8, 3))), list("aaaabbbb")
    assert mantel(of, {"x": same(groups)}, within=groups, permutations=50)["p"].tolist() == [1.0]
    assert mantel(of, {"x": same(groups)}, permutations=50)["p"].iloc[0] < 1
    with pytest.raises(SteerlabError, match="7 groups were named for 8 languages"):
        mantel(of, {"x": same(groups)}, within=groups[1:])
    with pytest.raises(SteerlabError, match="every language is alone in its group"):
        mantel(of, {"x": same(groups)}, within=list("abcdefgh"))


def test_regression_is_least_squares_with_partial_p() -> None:
    random = np.random.default_rng(2)
    on = {name: square(random.standard_normal((12, 2))) for name in ("x", "y", "z")}
    of = square(random.standard_normal((2, 12, 3))) + 0.5 * on["x"]
    table = regression(of, on, permutations=199)
    pair = np.triu_indices(12, 1)

    def standard(values: np.ndarray) -> np.ndarray:
        return np.asarray((values - values.mean()) / values.std())

    for layer in range(2):
        columns, values = (
            np.stack([standard(m[pair]) for m in on.values()]).T,
            standard(of[layer][pair]),
        )
        fit = LinearRegression().fit(columns, values)
        mine = table[table["layer"] == layer]
        assert mine["beta"].tolist() == pytest.approx(fit.coef_.tolist())
        assert mine["r2"].tolist() == pytest.approx([fit.score(columns, values)] * 3)
        assert (
            mine["p"].tolist() == mantel(of[[layer]], on, given=on, permutations=199)["p"].tolist()
        )
    assert (table["p_corrected"] <= 0.05).tolist() == [True, False, False] * 2
    assert (table["r2_p"] <= table["r2_p_corrected"]).all()


def test_names_of_languages_do_not_matter_to_r() -> None:
    random = np.random.default_rng(4)
    of, on = (
        square(random.standard_normal((1, 8, 3))),
        {k: square(random.standard_normal((8, 2))) for k in "ab"},
    )
    order = random.permutation(8)
    turned = regression(
        of[:, order][:, :, order],
        {k: m[np.ix_(order, order)] for k, m in on.items()},
        permutations=9,
    )
    kept = regression(of, on, permutations=9)
    for column in ("beta", "r", "r2"):
        assert turned[column].tolist() == pytest.approx(kept[column].tolist())


def test_matrices_that_do_not_fit_are_refused() -> None:
    of, other = square(np.random.default_rng(0).standard_normal((1, 6, 3))), same(list("aabbcc"))
    with pytest.raises(SteerlabError, match="4 languages were given; .* from 5 on"):
        mantel(of[:, :4, :4], {"x": other[:4, :4]})
    with pytest.raises(SteerlabError, match="no distance was given"):
        mantel(of, {})
    with pytest.raises(SteerlabError, match=r"'x' has shape \(5, 5\), but there are 6 languages"):
        mantel(of, {"x": other[:5, :5]})
    with pytest.raises(SteerlabError, match="'x' is not symmetric and finite"):
        mantel(of, {"x": np.triu(other)})
    with pytest.raises(SteerlabError, match="'x' is the same for all pairs"):
        mantel(of, {"x": same(list("abcdef"))})
    with pytest.raises(SteerlabError, match="'x' is a sum of the others"):
        mantel(of, {"x": other}, given={"y": 2 * other + 1})


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("damage", ["lower", "NaN", "infinity", "one pair"])
def test_what_is_no_distance_is_refused_on_both_sides(damage: str, scale: float) -> None:
    """Of each pair one triangle is read, so that the other one must say the same."""
    rng = np.random.default_rng(0)
    half = rng.random((3, 7, 7))
    whole = scale * (half + half.transpose(0, 2, 1))
    other = rng.random((7, 7))
    other = other + other.T
    sound = mantel(whole, {"x": other}, permutations=19)
    assert np.isfinite(sound["r"]).all()
    rounded = whole * (1 + 1e-7 * half)
    assert np.allclose(mantel(rounded, {"x": other}, permutations=19)["r"], sound["r"], atol=1e-4)
    broken = whole.copy()
    if damage == "lower":
        broken[1] = np.triu(broken[1])
    else:
        broken[1, 4, 2] = {"NaN": np.nan, "infinity": np.inf, "one pair": 3 * scale}[damage]
    for test in (mantel, regression):
        with pytest.raises(SteerlabError, match="at index 1 are not symmetric and finite, and"):
            test(broken, {"x": other}, permutations=19)
        with pytest.raises(SteerlabError, match="'x' is not symmetric and finite"):
            test(whole, {"x": broken[1]}, permutations=19)
