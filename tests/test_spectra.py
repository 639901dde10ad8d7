"""The spectrum of paired differences: planted rank, mass, stability, and the window of layers."""

import pytest
import torch
from planting import made_of, moments, pairs, planted
from torch import Tensor

import steerlab.estimate as estimate
from steerlab.core.errors import SteerlabError
from steerlab.estimate import Spectrum, spectra, spectrum_table, window
from steerlab.estimate.spectra import stability


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_planted_rank_is_found_and_not_the_size_of_the_mask(rank: int) -> None:
    """Ten of twelve dimensions are not zero: the gap to the zeros is the largest of all, and is
    not taken."""
    differences, _ = made_of(
        [*[6.0, 5.0, 4.5][:rank], *torch.linspace(0.3, 0.2, 10 - rank).tolist()]
    )
    [found] = spectra(pairs(differences))
    exact = torch.linalg.svdvals(differences)
    assert float(exact[9] / exact[10].clamp(min=1e-12)) > float(exact[rank - 1] / exact[rank]), (
        "where the mask ends"
    )
    assert (found.rank, found.gap, len(found.values)) == (rank, rank, 10)
    torch.testing.assert_close(
        torch.tensor(found.values).double(), exact[:10], atol=1e-3, rtol=1e-3
    )
    assert found.ratio == pytest.approx(float(exact[rank - 1] / exact[rank]), rel=1e-2)
    squares = exact.square()
    assert found.mass == pytest.approx(float(squares[:rank].sum() / squares.sum()), abs=1e-3)
    share = squares[:10] / squares.sum()
    assert found.effective_rank == pytest.approx(
        float((-(share * share.log()).sum()).exp()), rel=1e-2
    )
    assert found.stability > 0.95
    assert (found.source, found.target, found.layer, found.pairs) == ("en", "de", 0, 40)


def overlap_by_hand(differences: Tensor, rank: int, bootstraps: int, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    spans = []
    for _ in range(bootstraps):
        drawn = differences[
            torch.randint(len(differences), (len(differences),), generator=generator)
        ]
        spans.append(torch.linalg.svd(drawn, full_matrices=False)[2][:rank])
    found = [
        (spans[a] @ spans[b].T).square().sum() / rank
        for a in range(bootstraps)
        for b in range(a + 1, bootstraps)
    ]
    return float(torch.stack(found).median())


@pytest.mark.parametrize("rank", [1, 3])
def test_stability_is_the_overlap_of_bootstrap_subspaces(rank: int) -> None:
    differences = torch.randn(30, 50, generator=torch.Generator().manual_seed(rank)).double()
    found = stability(differences, rank, bootstraps=6, seed=3)
    assert found == pytest.approx(overlap_by_hand(differences, rank, 6, 3), abs=1e-6)
    assert found < 0.8, "noise has no stable axes"
    assert stability(differences + 20, 1, bootstraps=6) > 0.99
    assert torch.isnan(torch.tensor(stability(differences, rank, bootstraps=0)))


def test_the_eigengap_keeps_what_the_spectrum_says() -> None:
    given = moments(planted()[0])
    found, fitted = spectra(given, bootstraps=2), estimate.eigengap(given)
    assert [(s.target, s.layer) for s in found] == [
        (iso, layer) for iso in ("de", "es", "ja") for layer in (1, 4)
    ]
    for spectrum in found:
        lang, place = given.langs.index(spectrum.target), given.layers.index(spectrum.layer)
        assert int(fitted.basis[lang, place].any(-1).sum()) == spectrum.rank


def spectrum(layer: int, mass: float, *, stable: float = 1.0, target: str = "de") -> Spectrum:
    return Spectrum("en", target, layer, 40, (3.0, 1.0, 0.5), 1.5, 1, 3.0, 1, mass, stable)


def test_the_window_is_the_best_run_of_neighbouring_layers() -> None:
    found = [
        spectrum(layer, mass) for layer, mass in enumerate([0.2, 0.9, 0.8, 0.1, 0.7, 0.9, 0.9, 0.1])
    ]
    assert window(found, target="de", widths=(3,)) == (4, 5, 6)
    assert window(found, target="de", widths=(2,)) == (5, 6)
    assert window(found, target="de") == (1, 2, 3, 4, 5, 6), (
        "the sum grows with the width, up to the widest"
    )
    shaky = [spectrum(s.layer, s.mass, stable=0.1 if s.layer == 5 else 1.0) for s in found]
    assert window(shaky, target="de", widths=(3,)) == (0, 1, 2)
    flat = [spectrum(layer, 0.5) for layer in range(6)]
    assert window(flat, target="de", widths=(3,)) == (0, 1, 2), "the earliest of equals"
    torn = [spectrum(layer, 0.5) for layer in (0, 1, 4, 5, 6)]
    assert window(torn, target="de", widths=(3, 4)) == (4, 5, 6), (
        "neighbours, not the next that were read"
    )
    assert window(torn, target="de", widths=(5,)) == (4, 5, 6), "the widest that there is"
    unknown = [spectrum(layer, mass, stable=float("nan")) for layer, mass in enumerate([0.2, 0.3])]
    assert window(unknown, target="de", widths=(1,)) == (1,)


def test_the_table_has_a_row_for_each_value() -> None:
    found = [spectrum(layer, 0.5, target=iso) for iso in ("de", "es") for layer in range(4)]
    table = spectrum_table(found, kind="deranged", largest=2, widths=(2,))
    assert len(table) == 2 * 4 * 2
    assert set(table["kind"]) == {"deranged"}
    assert table.loc[table["place"] == 1, "kept"].all()
    assert not table.loc[table["place"] == 2, "kept"].any()
    assert table["share"].tolist()[:2] == pytest.approx([9 / 10.25, 1 / 10.25])
    assert table.groupby("target")["in_window"].sum().tolist() == [4, 4]
    columns = (
        "kind source target layer place value share kept pairs effective_rank gap ratio rank mass "
        "stability"
    )
    assert table.columns.tolist() == [*columns.split(), "in_window"]


def test_what_spectra_refuse() -> None:
    one = moments({"en": torch.zeros(1, 2, 1, 12), "de": torch.ones(1, 2, 1, 12)})
    with pytest.raises(
        SteerlabError,
        match="a rank of 2 needs as many pairs; there are de 1: add some, or ask less",
    ):
        spectra(one)
    with pytest.raises(
        SteerlabError, match="the gap is looked for among the first 0 values; give 1 or more"
    ):
        spectra(moments(planted()[0]), largest=0)
    with pytest.raises(
        SteerlabError, match="there is no spectrum of 'fr'; ask for one of the targets"
    ):
        window([spectrum(0, 0.5)], target="fr")
    for widths in ((), (0, 2)):
        with pytest.raises(
            SteerlabError, match="the widths of a window are .*; give numbers from 1 up"
        ):
            window([spectrum(0, 0.5)], target="de", widths=widths)
