"""Kinship is found where it was planted, and as seldom as chance has it where it was not."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
from scipy.spatial.distance import cosine, squareform
from scipy.stats import kstest, pearsonr, spearmanr
from sklearn.linear_model import LinearRegression
from torch import Tensor
from transformers import AutoTokenizer

from steerlab.analysis.geometry import (
    by_layer,
    clades,
    classification,
    cosine_matrices,
    effective_rank,
    entanglement,
    family_neighbours,
    layout,
    mantel,
    neighbours,
    regression,
    resampled,
    separation,
    support,
    unigrams,
    untangle,
    within_script,
)
from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families
from steerlab.core.moments import Moments
from steerlab.core.sites import hook_name
from steerlab.models.loading import PACKAGED

LANGS = "en de nl sv es fr it pt ru uk bg pl hu tr hi ja".split()
ALONE = 4  # hu tr hi ja have no kin here


def vectors(seed: int, *, layers: int = 5, kin: float = 0.0, at: int | None = None) -> np.ndarray:
    """[layer lang width] with the family's own vector, `kin` times as long, at one layer or all
    of them."""
    random = np.random.default_rng(seed)
    found = random.standard_normal((layers, len(LANGS), 12))
    names, places = np.unique(families(LANGS), return_inverse=True)
    own = random.standard_normal((len(names), 12)) * kin
    for layer in range(layers) if at is None else [at]:
        found[layer] += own[places]
    return np.asarray(found + 100)  # far from the origin, as activations are


# Neighbours


def test_neighbours_are_the_nearest_by_the_cosine_of_centred_vectors() -> None:
    given = vectors(0)[0]
    centred = given - given.mean(0)
    for row, near in enumerate(neighbours(given)):
        cosines = [
            np.dot(centred[row], other) / np.linalg.norm(centred[row]) / np.linalg.norm(other)
            for other in centred
        ]
        cosines[row] = -2
        assert near == int(np.argmax(cosines))
    raw = given / np.linalg.norm(given, axis=1, keepdims=True)
    uncentred = (raw @ raw.T - 2 * np.eye(len(LANGS))).argmax(1)
    assert (uncentred != neighbours(given)).any(), "centring matters far from the origin"


# Kinship


def test_planted_families_are_found() -> None:
    found = family_neighbours(vectors(0, kin=3.0), LANGS, permutations=2000)
    assert found.p == pytest.approx(1 / 2001), (
        "no permutation reaches it, and none of them is the truth"
    )
    assert min(found.accuracy) > 0.9 > found.null
    assert (found.n, found.layers, found.best) == (len(LANGS) - ALONE, (0, 1, 2, 3, 4), 0)


def test_families_planted_at_one_layer_are_found_there() -> None:
    found = family_neighbours(
        vectors(1, kin=3.0, at=3), LANGS, layers=[2, 4, 6, 8, 10], permutations=1000
    )
    assert (found.best, found.layers[found.best]) == (3, 8)
    assert found.p < 0.01
    assert sorted(found.accuracy)[-2] < 0.7


def test_accuracy_counts_only_languages_with_kin() -> None:
    langs = ["en", "de", "ja", "hu"]
    given = np.array([[[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]])
    found = family_neighbours(given, langs, permutations=50)
    assert (found.accuracy, found.n) == ((1.0,), 2)
    split = np.array([[[1.0, 0.1], [-1.0, -0.1], [1.0, -0.1], [-1.0, 0.1]]])
    assert family_neighbours(split, langs, permutations=50).accuracy == (0.0,)


def p_values(layers: int) -> np.ndarray:
    return np.array(
        [
            family_neighbours(vectors(seed, layers=layers), LANGS, permutations=150).p
            for seed in range(120)
        ]
    )


@pytest.mark.parametrize("layers", [1, 6])
def test_p_is_calibrated_also_over_the_best_of_many_layers(layers: int) -> None:
    """Under the null P(p <= a) is at most a, and near it: accuracies are few, so p-values are
    coarse."""
    found = p_values(layers)
    for level in (0.05, 0.2, 0.5):
        assert (found <= level).mean() < level + 3 * np.sqrt(level * (1 - level) / len(found))
    assert 0.4 < found.mean() < 0.75
    assert found.min() >= 1 / 151


def test_without_the_correction_the_best_of_many_layers_would_look_like_kinship() -> None:
    best = []
    for seed in range(120):
        given = vectors(seed, layers=6)
        best.append(
            min(family_neighbours(layer[None], LANGS, permutations=100).p for layer in given)
        )
    assert np.mean(np.array(best) <= 0.05) > 0.12
    assert kstest(best, "uniform").pvalue < 1e-6


def test_the_seed_decides_p_and_nothing_else() -> None:
    given = vectors(5)
    one, same, other = (
        family_neighbours(given, LANGS, permutations=100, seed=seed) for seed in (0, 0, 1)
    )
    assert one == same
    assert other.accuracy == one.accuracy


def test_without_kin_there_is_no_kinship() -> None:
    with pytest.raises(SteerlabError, match="no two of en ja hu share a family; add relatives"):
        family_neighbours(vectors(0)[:, :3], ["en", "ja", "hu"])
    with pytest.raises(SteerlabError, match="unknown language code 'xx'"):
        family_neighbours(vectors(0)[:, :2], ["en", "xx"])


def test_within_script() -> None:
    assert [LANGS[i] for i in within_script(LANGS)] == "en de nl sv es fr it pt pl hu tr".split()
    assert [LANGS[i] for i in within_script(LANGS, "Cyrl")] == ["ru", "uk", "bg"]


# Separation


def texts(apart: list[float], *, seed: int, count: int = 40) -> dict[str, Tensor]:
    """h [text pos layer width] of three languages whose means lie `apart` at each layer."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(8)[:3]
    return {
        lang: torch.randn(count, 4, len(apart), 8, generator=generator)
        + torch.tensor(apart)[:, None] * axes[i]
        + 50
        for i, lang in enumerate(("en", "de", "ja"))
    }


def moments(given: dict[str, Tensor], *, scatter: bool = True) -> Moments:
    layers = next(iter(given.values())).shape[2]
    made = Moments(tuple(given), tuple(range(layers)), 8, scatter=scatter)
    for lang, h in given.items():
        made.update(
            lang,
            {hook_name("resid_post", i): h[:, :, i] for i in range(layers)},
            torch.ones(h.shape[:2]) > 0,
        )
    return made


def test_separation_grows_with_the_distance_of_the_means() -> None:
    apart = [0.0, 1.0, 6.0]
    unseen = {lang: h.mean(1) for lang, h in texts(apart, seed=1).items()}
    table = separation(moments(texts(apart, seed=0)), unseen)
    assert table.columns.tolist() == ["layer", "trace_ratio", "nearest_mean", "n"]
    assert table["layer"].tolist() == [0, 1, 2]
    assert table["n"].tolist() == [120] * 3
    assert table["nearest_mean"].iloc[2] == 1.0
    assert table["nearest_mean"].iloc[0] == pytest.approx(1 / 3, abs=0.15)
    assert table["nearest_mean"].is_monotonic_increasing
    assert table["trace_ratio"].is_monotonic_increasing


def test_the_trace_ratio_is_that_of_between_and_within() -> None:
    given = texts([1.0, 4.0], seed=0)
    given["ja"] = given["ja"][:10]  # unequal numbers
    table = separation(moments(given), {lang: h.mean(1) for lang, h in given.items()})
    for layer in range(2):
        tokens = {lang: h[:, :, layer].flatten(0, 1).double() for lang, h in given.items()}
        mean = torch.cat([*tokens.values()]).mean(0)
        between = sum(len(x) * (x.mean(0) - mean).square().sum() for x in tokens.values())
        within = sum((x - x.mean(0)).square().sum() for x in tokens.values())
        assert table["trace_ratio"].iloc[layer] == pytest.approx(float(between / within), rel=1e-4)


def test_separation_needs_scatter() -> None:
    given = texts([1.0], seed=0)
    with pytest.raises(SteerlabError, match=r"also=\['scatter'\]"):
        separation(moments(given, scatter=False), {lang: h.mean(1) for lang, h in given.items()})


# Unigrams


def test_unigrams_are_the_frequencies_of_tokens() -> None:
    tokenizer, part = (
        AutoTokenizer.from_pretrained(PACKAGED),
        corpus().select(["en", "nl", "ja"]).take(20),
    )
    found = unigrams(part, tokenizer)
    assert found.shape == (3, len(tokenizer))
    np.testing.assert_allclose(found.sum(1), 1)
    ids = [i for line in part["en"] for i in tokenizer(line, add_special_tokens=False).input_ids]
    for token in set(ids):
        assert found[0, token] == pytest.approx(ids.count(token) / len(ids))
    shared = np.minimum(found[0], found[1]).sum(), np.minimum(found[0], found[2]).sum()
    assert shared[0] > 2 * shared[1], "English shares more tokens with Dutch than with Japanese"
    assert not found[:, tokenizer.bos_token_id].any()


# ------------------------------------------------------------------------------------------- layers


def test_centring_ignores_what_all_languages_share() -> None:
    given = vectors(0, layers=3) - 100
    shift = np.random.default_rng(1).standard_normal((3, 1, 12)) * 50
    np.testing.assert_allclose(cosine_matrices(given), cosine_matrices(given + shift), atol=1e-9)
    raw = cosine_matrices(given, centre=False)
    assert np.abs(raw - cosine_matrices(given + shift, centre=False)).max() > 0.01, (
        "raw cosines are of the origin"
    )
    np.testing.assert_allclose(raw, raw.transpose(0, 2, 1))
    np.testing.assert_allclose(np.diagonal(raw, axis1=1, axis2=2), 1)


def test_statistics_by_layer_are_means_over_pairs() -> None:
    given = vectors(3, layers=2, kin=1.0)
    table = by_layer(given, LANGS, layers=[4, 9])
    names = families(LANGS)
    for place in range(2):
        here, centred = given[place], given[place] - given[place].mean(0)
        raw: list[float] = []
        within: list[float] = []
        between: list[float] = []
        gap: list[float] = []
        for a in range(len(LANGS)):
            for b in range(a):
                raw.append(1 - cosine(here[a], here[b]))
                (within if names[a] == names[b] else between).append(
                    1 - cosine(centred[a], centred[b])
                )
                gap.append(float(np.linalg.norm(here[a] - here[b])))
        row = table.iloc[place]
        expected = [np.mean(x) for x in (raw, within, between, gap)]
        assert row[["raw", "within", "between", "gap"]].tolist() == pytest.approx(expected)
        assert row["gap_ratio"] == pytest.approx(np.mean(gap) / np.linalg.norm(here, axis=1).mean())
        assert (row["n"], row["pairs"], row["pairs_within"]) == (16, 120, len(within))
    assert table["layer"].tolist() == [4, 9]


def test_planted_families_are_alike_and_shuffled_ones_are_not() -> None:
    given = vectors(0, layers=1, kin=3.0)
    table = by_layer(given, LANGS).iloc[0]
    assert table["within"] > 0.6 > 0 > table["between"]
    order = np.random.default_rng(3).permutation(len(LANGS))
    shuffled = by_layer(given[:, order], LANGS).iloc[0]
    assert abs(shuffled["within"] - shuffled["between"]) < 0.3


def test_effective_rank_is_the_number_of_equal_axes() -> None:
    axes = np.eye(6)[:4]
    corners = np.concatenate([axes, -axes])  # their mean is zero, and four axes have equal variance
    assert effective_rank(corners + 7) == pytest.approx(4)
    uneven = corners * np.array([1, 0.5, 0.1, 0.01, 0, 0])
    assert 1 < effective_rank(uneven) < 2.5
    assert effective_rank(np.random.default_rng(0).standard_normal((5, 400))) <= 4 + 1e-9


def test_a_language_without_direction_is_refused() -> None:
    given = vectors(0, layers=2)
    given[1, 0] = given[1, 1:].mean(0)  # the mean of the others is the mean of all
    with pytest.raises(SteerlabError, match="the mean of all or not finite at some layer"):
        cosine_matrices(given)
    with pytest.raises(SteerlabError, match="is zero or not finite"):
        cosine_matrices(given * np.array([0, 1])[:, None, None], centre=False)


def recorded(layer: int) -> tuple[list[str], np.ndarray]:
    """The languages, and vectors [1 lang width] that lie to one another as Llama's language
    means do at a layer."""
    told = json.loads((Path(__file__).parent / "golden" / "llama-means.json").read_text("utf-8"))
    langs, gram = told["langs"], np.zeros((32, 32))
    gram[np.triu_indices(32)] = told["gram"][str(layer)]
    values, axes = np.linalg.eigh(np.triu(gram) + np.triu(gram, 1).T)
    return langs, (axes * np.sqrt(np.clip(values, 0, None)))[None]


@pytest.mark.parametrize(
    ("layer", "within", "between", "right"), [(11, 0.557, -0.063, 15), (29, 0.108, -0.043, 14)]
)
def test_the_families_of_llama_are_those_that_were_measured(
    layer: int, within: float, between: float, right: int
) -> None:
    """Recorded from CLaS-Bench's release; 32 languages, of which 16 are of the three large
    families."""
    langs, given = recorded(layer)
    row = by_layer(given, langs).iloc[0]
    assert (round(row["within"], 3), round(row["between"], 3)) == (within, between)
    kin = family_neighbours(given, langs, least=3, permutations=200)
    assert (round(kin.accuracy[0] * kin.n), kin.n, kin.p) == (right, 16, 1 / 201)


# ---------------------------------------------------------------------------------------------- kin


def test_least_counts_only_large_families() -> None:
    langs = ["en", "de", "nl", "es", "fr", "hu", "ja"]
    given = np.zeros((1, 7, 3))
    given[0, :3, 0], given[0, 3:5, 1], given[0, 5:, 2] = 1, 1, 1
    given += 0.01 * np.random.default_rng(0).standard_normal(given.shape)
    assert family_neighbours(given, langs, permutations=50).n == 5
    large = family_neighbours(given, langs, permutations=50, least=3)
    assert (large.n, large.accuracy) == (3, (1.0,))
    mixed = given[:, [0, 3, 5, 1, 4, 2, 6]]  # now English, German and Dutch lie apart
    assert family_neighbours(mixed, langs, permutations=50, least=3).accuracy[0] < 0.5
    with pytest.raises(
        SteerlabError, match="no 4 of en de nl es fr hu ja share a family; add relatives"
    ):
        family_neighbours(given, langs, least=4)


# ------------------------------------------------------------------------------------------- Mantel


def square(values: np.ndarray) -> np.ndarray:
    """Euclidean distances between rows [..., row, width]."""
    return np.asarray(np.linalg.norm(values[..., :, None, :] - values[..., None, :, :], axis=-1))


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


# -------------------------------------------------------------------------------------------- trees


def tree_of(given: np.ndarray) -> np.ndarray:
    return np.asarray(linkage(given - given.mean(0), "average", metric="cosine"))


def test_clades_are_what_merges() -> None:
    tree = np.array([[0, 1, 0.1, 2], [2, 3, 0.2, 2], [4, 5, 0.9, 4]], dtype=float)
    assert clades(tree, ["en", "de", "es", "fr"]) == [
        frozenset(x) for x in (["en", "de"], ["es", "fr"], LANGS4)
    ]
    with pytest.raises(SteerlabError, match="a tree of 4 leaves was given with 2 languages"):
        clades(tree, ["en", "de"])


LANGS4 = ["en", "de", "es", "fr"]


def test_planted_families_have_support_and_noise_has_not() -> None:
    random = np.random.default_rng(0)
    places = np.unique(families(LANGS), return_inverse=True)[1]
    family = random.standard_normal((places.max() + 1, 300))[places]
    for size, low, high in ((2.0, 0.95, 1.0), (0.0, 0.0, 0.6)):
        given = size * family + random.standard_normal((len(LANGS), 300))
        tree = tree_of(given)
        found = support(tree, [tree_of(x) for x in resampled(given, count=40)], LANGS)
        held = dict(zip(clades(tree, LANGS), found, strict=True))
        inside = [
            share for branch, share in held.items() if size == 0 or branch == frozenset(LANGS[4:8])
        ]
        assert low <= np.mean(inside) <= high
        assert held[frozenset(LANGS)] == 1
    assert support(tree, [tree], LANGS).tolist() == [1.0] * (len(LANGS) - 1)
    with pytest.raises(SteerlabError, match="no other tree was given"):
        support(tree, [], LANGS)


def test_resampling_draws_the_same_dimensions_for_all_languages() -> None:
    given = np.arange(12.0).reshape(2, 6)
    drawn = list(resampled(given, count=5, seed=1))
    assert all(((x[1] - x[0]) == 6).all() and set(x[0]) <= set(given[0]) for x in drawn)
    assert len({tuple(x[0]) for x in drawn}) == 5
    np.testing.assert_array_equal(drawn[0], next(resampled(given, count=1, seed=1)))


def test_a_classification_is_its_own_tree() -> None:
    """Two families of unequal depth, a node with three children, and a language alone."""
    paths = [
        ("ie", "g", "w"),
        ("ie", "g", "w"),
        ("ie", "g", "w"),
        ("ie", "g", "n"),
        ("ie", "r"),
        ("ie", "r"),
        ("u",),
    ]
    shared = np.array(
        [[float(sum(x == y for x, y in zip(a, b, strict=False))) for b in paths] for a in paths]
    )
    np.fill_diagonal(shared, 9)
    tree = classification(shared)
    expected = 1 - shared / 4
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(squareform(cophenet(tree)), expected)
    names = ["en", "de", "nl", "sv", "es", "fr", "hu"]
    for branch in (["en", "de", "nl"], ["en", "de", "nl", "sv"], ["es", "fr"], names[:6]):
        assert frozenset(branch) in clades(tree, names)


def test_entanglement_is_zero_for_one_order_and_one_for_its_opposite() -> None:
    order = list(range(7))
    assert entanglement(order, order) == 0
    assert entanglement(order, order[::-1]) == 1
    assert 0 < entanglement(order, [1, 0, 2, 3, 4, 5, 6]) < 0.2
    with pytest.raises(SteerlabError, match="the same leaves, each once"):
        entanglement(order, [0, 0, 1, 2, 3, 4, 5])


def test_untangling_only_turns_branches_and_undoes_what_was_turned() -> None:
    random = np.random.default_rng(0)
    tree = tree_of(random.standard_normal((12, 30)))
    turned = tree.copy()
    flip = random.random(len(tree)) < 0.5
    turned[flip, 0], turned[flip, 1] = tree[flip, 1], tree[flip, 0]
    start = leaves_list(tree).tolist()
    assert entanglement(start, leaves_list(turned).tolist()) > 0.2
    left, right = untangle(tree, turned, start=start)
    assert (left, right) == (start, start)
    other = tree_of(random.standard_normal((12, 30)))
    left, right = untangle(tree, other, start=start)
    for one, order in ((tree, left), (other, right)):
        for branch in clades(one, [str(k) for k in range(12)]):
            places = sorted(order.index(int(leaf)) for leaf in branch)
            assert places == list(range(places[0], places[-1] + 1)), (
                "a branch's leaves stay side by side"
            )
    assert entanglement(left, right) <= entanglement(start, leaves_list(other).tolist())


# ---------------------------------------------------------------------------------------------- map


def test_a_map_of_all_dimensions_keeps_every_distance() -> None:
    given = vectors(0, layers=2)
    points, shares = layout(
        given, dimensions=len(LANGS) - 1 if given.shape[2] >= len(LANGS) else 12
    )
    chord = np.sqrt(np.clip(2 - 2 * cosine_matrices(given), 0, None))
    for place in range(2):
        np.testing.assert_allclose(square(points[place]), chord[place], atol=1e-6)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    plane, part = layout(given, dimensions=2)
    assert plane.shape == (2, 16, 2)
    np.testing.assert_allclose(part, shares[:, :2])
    assert (square(plane) <= chord + 1e-9).all(), "fewer dimensions only shorten"


def test_layers_are_turned_alike() -> None:
    given = vectors(0, layers=1, kin=2.0)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    points, _ = layout(np.concatenate([given, given @ turn]), dimensions=3)
    np.testing.assert_allclose(points[0], points[1], atol=1e-6)
    with pytest.raises(SteerlabError, match="a map of 16 languages has 1 to 15 dimensions, not 16"):
        layout(given, dimensions=16)
