"""One plane for all layers, the layers that tell classes apart, and pairs chosen by distance."""

import pytest
import torch
from edits_by_hand import Fake
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.core.sites import hook_name
from steerlab.core.text_vectors import TextVectors
from steerlab.edits import rotate, turn_to
from steerlab.estimate import diffmean
from steerlab.estimate.selective import selective
from steerlab.models.positions import Positions

WIDTH, LAYERS = 16, (0, 1, 2, 3)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments(en: Tensor, de: Tensor) -> Moments:
    """Of two means [layer width], without noise."""
    made = Moments(("en", "de"), LAYERS, WIDTH, provenance={"model": {"fingerprint": "abc"}})
    for lang, mean in (("en", en), ("de", de)):
        h = mean[:, None, None].expand(-1, 2, 3, -1)
        activations = {
            hook_name("resid_post", layer): h[number] for number, layer in enumerate(LAYERS)
        }
        made.update(lang, activations, torch.ones(2, 3, dtype=torch.bool))
    return made


def planted(*, common: float = 0.0) -> tuple[Moments, Tensor]:
    """Layers 0, 2 and 3 differ along one direction, layer 1 along another; all share an offset."""
    main = torch.nn.functional.normalize(randn(WIDTH, seed=1), dim=-1)
    other = torch.nn.functional.normalize(randn(WIDTH, seed=2), dim=-1)
    other = torch.nn.functional.normalize(other - (other @ main) * main, dim=-1)
    steps = torch.stack([2 * main, 2 * other, 2 * main + 0.3 * other, 3 * main])
    offset = common * main
    return moments(offset - steps / 2, offset + steps / 2), main


def test_the_direction_is_the_one_most_like_the_others() -> None:
    made, main = planted()
    found = selective(made, "de")
    assert found.chosen in (0, 2, 3)
    for unit in found.direction.unit:
        assert float(unit @ main) > 0.95
    longest = selective(made, "de", chosen="longest")
    assert longest.chosen == 3
    torch.testing.assert_close(longest.direction.unit[0], main)


def test_layers_whose_means_have_opposite_signs() -> None:
    """About the origin of the activations an offset that all share hides the layers; about the mean
    of both it does not, nor do layers pass whose difference is across the direction."""
    made, _ = planted(common=0.05)
    assert selective(made, "de", origin="zero", chosen="longest").apart == (0, 2, 3)
    shifted, _ = planted(common=5.0)
    assert selective(shifted, "de", origin="zero", chosen="longest").apart == ()
    found = selective(shifted, "de", chosen="longest")
    assert set(found.apart) >= {0, 2, 3}
    assert float(found.along[1].abs().max()) < 1e-4
    assert found.at("last").layers == LAYERS[-len(found.apart) :]
    assert found.at("all").layers == LAYERS
    assert found.at().layers == found.apart
    with pytest.raises(SteerlabError, match="no layer's means have opposite signs"):
        selective(shifted, "de", origin="zero", chosen="longest").at()
    with pytest.raises(SteerlabError, match="there are no layers 'first'; give 'apart', 'all'"):
        found.at("first")


def test_one_plane_in_which_both_turns_turn() -> None:
    made, _ = planted()
    direction = selective(made, "de").direction
    first, second = direction.unit[0].double(), direction.extra["plane"][0].double()
    assert float(first @ second) == pytest.approx(0, abs=1e-6)
    h = 3 * randn(2, 5, WIDTH, seed=9)
    places = Positions(
        torch.ones(2, 5, dtype=torch.bool), torch.zeros(2, 5).bool(), torch.arange(2)
    )

    def at_layer(edit: object) -> Tensor:
        fake = Fake()
        with edit.on(fake):  # type: ignore[attr-defined]
            [(_, _, change)] = fake.changes
            return change(h, places)

    for edit in (rotate(direction.at(2), degrees=90), turn_to(direction.at(2), degrees=0)):
        new = at_layer(edit)
        torch.testing.assert_close(new.norm(dim=-1), h.norm(dim=-1))
        moved = (new - h).double()
        outside = moved - (moved @ first)[..., None] * first - (moved @ second)[..., None] * second
        assert float(outside.abs().max()) < 1e-5
    turned = at_layer(rotate(direction.at(2), degrees=90))
    torch.testing.assert_close(turned.double() @ first, h.double() @ second, atol=1e-5, rtol=1e-5)
    aimed = at_layer(turn_to(direction.at(2), degrees=0))
    assert float((aimed.double() @ second).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"target": "fr"}, "these moments have no 'fr'"),
        ({"target": "en"}, "source and target are both 'en'"),
        ({"origin": "middle"}, "there is no origin 'middle'; give 'both', 'all' or 'zero'"),
    ],
)
def test_what_is_no_plane_is_told(change: dict, told: str) -> None:
    made, _ = planted()
    with pytest.raises(SteerlabError, match=told):
        selective(made, change.pop("target", "de"), **change)


def test_layers_that_all_go_one_way_span_no_plane() -> None:
    main = randn(WIDTH)
    steps = torch.stack([main * size for size in (1.0, 2.0, 3.0, 4.0)])
    with pytest.raises(SteerlabError, match="parallel: they span no plane"):
        selective(moments(-steps, steps), "de")
    with pytest.raises(SteerlabError, match="needs two layers or more"):
        selective(planted()[0].at(2), "de")


# ------------------------------------------------------------------------------ chosen pairs


def texts(pairs: int = 40, seed: int = 0) -> tuple[TextVectors, Tensor, Tensor]:
    """Half of the pairs differ much, along one direction; the others a little, along another."""
    start = randn(pairs, 2, WIDTH, seed=seed) + 4
    far, near = randn(WIDTH, seed=5), 0.1 * randn(WIDTH, seed=6)
    step = torch.where(torch.arange(pairs)[:, None, None] % 2 == 0, 8 * far, near)
    return TextVectors({"en": start, "de": start + step}, (0, 1)), far, near


def test_the_farthest_pairs_are_those_that_differ_and_random_ones_are_not() -> None:
    made, far, near = texts()
    unit = torch.nn.functional.normalize(far, dim=-1)
    farthest = diffmean(made, select="farthest", k=20).between("en", "de")
    nearest = diffmean(made, select="nearest", k=20).between("en", "de")
    torch.testing.assert_close(farthest.unit, unit.expand(2, -1))
    torch.testing.assert_close(nearest.unit @ near / near.norm(), torch.ones(2))
    vectors = {
        select: diffmean(made, select=select, k=20).vectors[1, 0].norm()
        for select in ("farthest", "nearest", "random")
    }
    assert vectors["farthest"] > vectors["random"] > vectors["nearest"]


def test_all_pairs_are_plain_diffmean_of_texts() -> None:
    made, _, _ = texts()
    plain = diffmean(made)
    for select in ("farthest", "nearest", "random"):
        every = diffmean(made, select=select, k=40)
        torch.testing.assert_close(every.vectors, plain.vectors)
    torch.testing.assert_close(plain.means[1] - plain.means[0], plain.vectors[1])
    assert (plain.estimator, plain.source) == ("diffmean texts", "en")


def test_what_cannot_be_chosen_is_told() -> None:
    made, _, _ = texts()
    for options, told in (
        ({"select": "best"}, "there is no selection 'best'; give farthest, nearest, random"),
        ({"select": "farthest", "k": 41}, "k is 41, and there are 40 pairs"),
        ({"select": "farthest", "k": 0}, "k is 0; give a number of pairs"),
        ({"select": "farthest", "source": "fr"}, "there is no text of 'fr'"),
        ({"contrast": "rest"}, "of single texts there is no contrast"),
    ):
        with pytest.raises(SteerlabError, match=told):
            diffmean(made, **options)
    with pytest.raises(SteerlabError, match="which Moments do not keep; give collect_texts"):
        diffmean(planted()[0], select="farthest")
    few = TextVectors({"en": randn(3, 1, 4), "de": randn(2, 1, 4)}, (0,))
    with pytest.raises(SteerlabError, match="there are 3 texts of 'en' and 2 of 'de'"):
        diffmean(few)
    with pytest.raises(SteerlabError, match="hold NaN or infinity"):
        TextVectors({"en": torch.full((1, 1, 4), torch.nan)}, (0,))
    with pytest.raises(SteerlabError, match=r"give \[text layer width\]"):
        TextVectors({"en": randn(3, 2, 4)}, (0,))
