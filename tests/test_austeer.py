"""AUSteer: planted units are found, ties are broken and told, controls know nothing; and scaling is
each unit by its own rate."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.text_vectors import TextVectors
from steerlab.engine.prompts import encode
from steerlab.estimate.units.austeer import agreement

PAIRS, LAYERS, WIDTH = 40, 3, 50
RISES, FALLS = (1, 7), (2, 30)  # (layer, unit)


def planted(*, pairs: int = PAIRS, seed: int = 0) -> TextVectors:
    """Pairs in which one unit rises and one falls in all pairs but one or two, and the others as
    chance has it."""
    random = torch.Generator().manual_seed(seed)
    source = torch.randn(pairs, LAYERS, WIDTH, generator=random)
    target = torch.randn(pairs, LAYERS, WIDTH, generator=random)
    target[:, *RISES] = source[:, *RISES] + 0.1
    target[:, *FALLS] = source[:, *FALLS] - 0.1
    target[:2, *FALLS] = source[:2, *FALLS] + 5
    return TextVectors({"en": source, "de": target}, (0, 1, 2), "mlp_post")


def test_planted_units_are_found_with_their_rates():
    vectors = planted()
    chosen = sl.units.austeer(vectors, source="en", number=2)
    assert chosen.of("de", 1) == [7]
    assert chosen.of("de", 2) == [30]
    assert not chosen.chosen[0].any()  # of the source
    settings: Any = chosen.provenance["settings"]
    assert settings["perfect"] == {"de": 1}
    assert settings["tied"] == {"de": [1, 1]}
    assert settings["chance"]["de"] == pytest.approx(0.5 + math.sqrt(math.log(150) / 80))
    made = sl.units.momenta(chosen, vectors, source="en")
    rates = made.extra["rates"][1]
    assert float(rates[RISES]) == 1
    assert float(rates[FALLS]) == pytest.approx(-38 / 40)
    assert int((rates != 0).sum()) == 2
    assert made.where("de") == (1, 2)
    # The size counts for nothing: a unit that moves far in half of the pairs is none.
    far = vectors.vectors["de"].clone()
    far[::2, 0, 0] += 1e6
    far[1::2, 0, 0] -= 1e6
    again = sl.units.austeer(
        TextVectors({"en": vectors.of("en"), "de": far}, (0, 1, 2), "mlp_post"),
        source="en",
        number=2,
    )
    assert torch.equal(again.chosen, chosen.chosen)


def test_ties_go_to_what_is_steady_and_are_told():
    """On four pairs many units agree everywhere: among these the steadiest goes first, wherever it
    lies; and not the first one."""
    vectors = planted(pairs=4, seed=3)
    target = vectors.vectors["de"].clone()
    target[:, 2, 49] = vectors.vectors["en"][:, 2, 49] + 1  # the same step in every pair
    vectors = TextVectors({"en": vectors.of("en"), "de": target}, (0, 1, 2), "mlp_post")
    above, below = agreement(vectors.differences("en", "de"))
    perfect = int(((above == 1) | (below == 1)).sum())
    assert perfect > 10
    chosen = sl.units.austeer(vectors, source="en", number=3)
    settings: Any = chosen.provenance["settings"]
    assert settings["perfect"]["de"] == perfect
    assert settings["tied"]["de"] == [perfect, 3]
    assert 49 in chosen.of("de", 2)
    share = torch.maximum(above, below)
    found = chosen.score[1].double()
    assert ((found - share) >= 0).all()
    assert ((found - share) < 0.5 / 4).all()  # a tie-break never outweighs a pair


def test_controls_know_nothing():
    vectors = planted()
    chance = 0.5 + math.sqrt(math.log(LAYERS * WIDTH) / (2 * PAIRS))
    tops = [
        float(sl.units.austeer(vectors, source="en", number=1, shuffled=seed).score[1].max())
        for seed in range(8)
    ]
    # Shuffled labels reach the level of chance, and not what is planted. Hoeffding's bound for any
    # of the units of eight draws, at 1 %:
    assert max(tops) < 0.5 + math.sqrt(math.log(2 * 8 * LAYERS * WIDTH / 0.01) / (2 * PAIRS)) < 1
    assert sum(tops) / 8 == pytest.approx(chance, abs=0.06)
    assert float(sl.units.austeer(vectors, source="en", number=1).score[1].max()) > 1 > chance
    chosen = sl.units.austeer(vectors, source="en", number=2)
    drawn = sl.units.random_atoms(chosen, seed=1)
    assert int(drawn.chosen.sum()) == 2
    assert not torch.equal(drawn.chosen, chosen.chosen)
    assert drawn.method == "austeer random 1"
    last = sl.units.austeer(vectors, source="en", number=2, layers=[2])
    assert last.where("de") == (2,)
    assert last.of("de", 2)[0] == 30


def test_scaling_is_each_unit_by_its_own_rate():
    vectors = planted()
    chosen = sl.units.austeer(vectors, source="en", number=2)
    made = sl.units.momenta(chosen, vectors, source="en")
    step = made.at(*made.where("de")).between("en", "de")
    edit = sl.edits.scale_units(step, strength=8.0)
    assert [part.layer for part in edit.parts] == [1, 2]
    h = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(5))
    for part, (unit, factor) in zip(edit.parts, ((7, 9.0), (30, 1 - 8 * 0.95)), strict=True):
        new = h + part.change(h, part.tensors, None)
        wanted = h.clone()
        wanted[..., unit] *= factor
        torch.testing.assert_close(new, wanted, atol=1e-5, rtol=1e-5)
    assert all(part.identity for part in sl.edits.scale_units(step, strength=0.0).parts)
    with pytest.raises(SteerlabError, match="scale_units: 'de' has no unit at layers 1, 2, so th"):
        sl.edits.scale_units(replace(step, extra={"rates": 0 * step.extra["rates"]}))
    with pytest.raises(SteerlabError, match="scale_units needs the rates that momenta fits"):
        sl.edits.scale_units(replace(step, extra={}))


@pytest.mark.parametrize("site", ["attn_z", "mlp_post"])
def test_scaled_units_are_scaled_columns(polyglot, lines, site):
    """Baked, it multiplies the columns of the map that reads the units, and nothing else."""
    vectors = sl.collect_texts(
        polyglot, lines.split("estimate").take(12).select(["en", "de"]), site=site, read="last"
    )
    chosen = sl.units.austeer(vectors, source="en", number=5)
    made = sl.units.momenta(chosen, vectors, source="en")
    step = made.at(*made.where("de")).between("en", "de")
    edit = sl.edits.scale_units(step, strength=2.0, positions="everywhere")
    weights = sl.bake(polyglot, edit)
    assert weights.apart is not None
    assert weights.apart.largest < 1e-4
    assert not any(change.shift.any() for change in weights.changes)
    for change in weights.changes:
        before = polyglot.hf.get_submodule(change.module).weight
        with weights.on(polyglot):
            after = polyglot.hf.get_submodule(change.module).weight
        moved = (after != before).any(0).nonzero()[:, 0].tolist()
        layer = int(change.module.split(".")[2])
        assert sorted(moved) == sorted(chosen.of("de", layer))


def test_the_last_token_is_read(polyglot, lines):
    """Whatever the batch: of texts of several lengths, it is what a single pass ends in."""
    few = lines.split("estimate").take(5).select(["en", "de"])
    found = sl.collect_texts(polyglot, few, layers=[3], site="attn_z", read="last")
    for lang in few.langs:
        for number, line in enumerate(few[lang]):
            [ids] = encode(polyglot.tokenizer, [f"{line}\n"])
            seen: list[torch.Tensor] = []
            look = ("attn_z", 3, lambda h, _, seen=seen: seen.append(h[0, -1].clone()))
            with torch.inference_mode(), polyglot.attached([look]):
                polyglot.hf(torch.tensor([ids]))
            read = found.of(lang)[number, 0].float()
            torch.testing.assert_close(read, seen[0], atol=1e-4, rtol=1e-4)
    assert found.provenance["read"] == "last"
    mean = sl.collect_texts(polyglot, few, layers=[3], site="attn_z")
    assert not torch.allclose(mean.of("en"), found.of("en"), atol=1e-2)


def test_what_cannot_be_chosen_from_is_refused():
    vectors = planted()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"number": 0}, "number is 0; give a whole number of units"),
        ({"number": 151}, "151 units are asked for, and there are 150"),
        ({"number": 51, "layers": [1]}, "51 units are asked for, and there are 50"),
        ({"layers": [9]}, "no layer 9 here; there are layers 0, 1, 2"),
        ({"source": "fr"}, "there is no text of 'fr'"),
    ]
    for given, refused in cases:
        with pytest.raises(SteerlabError, match=refused):
            sl.units.austeer(vectors, **{"source": "en", "number": 2, **given})
    chosen = sl.units.austeer(vectors, source="en", number=2)
    other = TextVectors(vectors.vectors, (0, 1, 2), "attn_z")
    with pytest.raises(SteerlabError, match="the units were chosen with site mlp_post, and the te"):
        sl.units.momenta(chosen, other, source="en")
    with pytest.raises(SteerlabError, match="read is 'first'; of each text there are its 'mean'"):
        sl.collect_texts(None, Corpus("few", {"en": ("A.",)}, (0,)), read="first")
