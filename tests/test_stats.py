"""Streamed statistics equal those of all tokens at once, whatever the order, the batches or the
shards."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.core.samples import Paired, Reservoir
from steerlab.core.sites import hook_name

LANGS, LAYERS, WIDTH = ("en", "de"), (1, 4), 3
Batch = tuple[str, Tensor, Tensor]  # language, h [row pos layer width], mask [row pos]


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches(count: int, *, seed: int = 0, offset: float = 0.0) -> list[Batch]:
    """Batches of both languages, of unequal sizes, some positions masked; at least one token in
    each text."""
    found, generator = [], random(seed)
    for index in range(count):
        rows, length = 1 + index % 3, 2 + index % 4
        mask = torch.rand(rows, length, generator=generator) < 0.6
        mask[:, -1] |= ~mask.any(1)
        h = (
            torch.randn(rows, length, len(LAYERS), WIDTH, generator=generator)
            * torch.tensor([1.0, 2.0, 5.0])
            + offset
        )
        found.append((LANGS[index % 2], h + index % 2, mask))
    return found


def cache(h: Tensor) -> dict[str, Tensor]:
    return {hook_name("resid_post", layer): h[:, :, place] for place, layer in enumerate(LAYERS)}


def moments(
    given: Sequence[Batch], *, scatter: bool = True, sample: int = 0, pairs_from: str | None = None
) -> Moments:
    made = Moments(LANGS, LAYERS, WIDTH, scatter=scatter, sample=sample, pairs_from=pairs_from)
    for lang, h, mask in given:
        made.update(lang, cache(h), mask)
    return made


def tokens(given: Sequence[Batch], lang: str) -> np.ndarray:
    """All counted tokens of a language [token layer width], in double precision."""
    return np.concatenate([h[mask].double().numpy() for name, h, mask in given if name == lang])


def two_pass_scatter(given: Sequence[Batch]) -> np.ndarray:
    centred = [tokens(given, lang) - tokens(given, lang).mean(0) for lang in LANGS]
    return np.asarray(sum(np.einsum("tlw,tlv->lwv", x, x) for x in centred))


# Moments


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_streaming_equals_all_at_once_also_far_from_the_origin(offset: float) -> None:
    given = batches(12, offset=offset)
    made = moments(given)
    for place, lang in enumerate(LANGS):
        assert made.count[place] == len(tokens(given, lang))
        np.testing.assert_allclose(
            made.mean[place], tokens(given, lang).mean(0), rtol=1e-6, atol=1e-5
        )
        lasts = [
            h[row, mask[row].nonzero().max()]
            for name, h, mask in given
            if name == lang
            for row in range(len(h))
        ]
        np.testing.assert_allclose(
            made.last[place], torch.stack(lasts).double().mean(0), rtol=1e-6, atol=1e-5
        )
        texts = [
            h[row][mask[row]].mean(0)
            for name, h, mask in given
            if name == lang
            for row in range(len(h))
        ]
        np.testing.assert_allclose(
            made.pooled[place], torch.stack(texts).double().mean(0), rtol=1e-6, atol=1e-5
        )
        assert made.rows[place] == len(lasts)
    scatter = two_pass_scatter(given)
    assert made.within is not None
    np.testing.assert_allclose(made.within, scatter, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(
        made.covariance(), scatter / float(made.count.sum()), rtol=2e-3, atol=1e-4
    )


def test_clouds_are_each_languages_own_scatter_and_add_up_to_all() -> None:
    given = batches(12)
    half = Moments(LANGS, LAYERS, WIDTH, scatter=True, clouds=True)
    other = Moments(LANGS, LAYERS, WIDTH, scatter=True, clouds=True)
    for number, (lang, h, mask) in enumerate(given):
        (half if number < 5 else other).update(lang, cache(h), mask)
    made = half.merge(other)
    assert made.clouds is not None
    for place, lang in enumerate(LANGS):
        x = tokens(given, lang)
        centred = x - x.mean(0)
        np.testing.assert_allclose(
            made.clouds[place], np.einsum("tlw,tlv->lwv", centred, centred), rtol=2e-3, atol=2e-3
        )
        np.testing.assert_allclose(
            made.second_moment(place, 1), x[:, 1].T @ x[:, 1] / len(x), rtol=2e-3, atol=2e-3
        )
    np.testing.assert_allclose(
        made.clouds.sum(0) / float(made.count.sum()), made.covariance(), rtol=1e-3, atol=1e-3
    )
    assert torch.equal(made.at(4).need("clouds"), made.clouds[:, 1:])
    every = np.concatenate([tokens(given, lang) for lang in LANGS])
    spread = np.stack([np.cov(every[:, place].T, bias=True) for place in range(2)])
    np.testing.assert_allclose(made.spread(), spread, rtol=2e-3, atol=2e-3)
    assert not np.allclose(made.spread(), made.covariance(), rtol=1e-2), (
        "languages differ in their means"
    )


def test_the_textbook_formula_would_fail_far_from_the_origin() -> None:
    given = batches(12, offset=1000.0)
    squares = sum(
        np.einsum("tlw,tlv->lwv", x, x) for x in (h[mask].numpy() for _, h, mask in given)
    )
    means = [
        (len(tokens(given, lang)), tokens(given, lang).mean(0).astype(np.float32)) for lang in LANGS
    ]
    naive = np.asarray(squares) - sum(n * np.einsum("lw,lv->lwv", mean, mean) for n, mean in means)
    assert not np.allclose(naive, two_pass_scatter(given), rtol=0.1)


@given(st.permutations(range(8)), st.integers(0, 8), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_order_and_shards_do_not_matter(order: list[int], cut: int, seed: int) -> None:
    given = batches(8, seed=seed)
    whole = moments(given, sample=4)
    shuffled = [given[i] for i in order]
    merged = moments(shuffled[:cut], sample=4).merge(moments(shuffled[cut:], sample=4))
    for part in ("count", "rows", "mean", "pooled", "last", "within"):
        np.testing.assert_allclose(
            getattr(merged, part), getattr(whole, part), rtol=1e-4, atol=1e-4, err_msg=part
        )
    assert merged.sample is not None
    assert merged.sample.seen == [int(n) for n in whole.count]
    every = {lang: {tuple(row) for row in tokens(given, lang)[:, 0].tolist()} for lang in LANGS}
    for place, lang in enumerate(LANGS):
        assert {tuple(row) for row in merged.sample.of(place)[:, 0].double().tolist()} <= every[
            lang
        ]


def test_what_the_mask_hides_does_not_count() -> None:
    given = batches(6)
    plain = moments(given)
    for trash in (1e6, float("nan"), float("inf")):
        dirty = [
            (lang, torch.where(mask[..., None, None], h, trash), mask) for lang, h, mask in given
        ]
        other = moments(dirty)
        for part in ("count", "mean", "last", "within"):
            assert torch.equal(getattr(plain, part), getattr(other, part)), (part, trash)
    unmasked = moments([(lang, h, torch.ones_like(mask)) for lang, h, mask in given])
    assert not torch.allclose(plain.mean, unmasked.mean, atol=0.01)


@pytest.mark.parametrize("trash", [1e6, float("nan")])
def test_update_gives_back_the_mean_of_each_text(trash: float) -> None:
    lang, h, mask = batches(3)[2]
    made = Moments(LANGS, LAYERS, WIDTH)
    means = made.update(lang, cache(torch.where(mask[..., None, None], h, trash)), mask)
    expected = torch.stack([h[row][mask[row]].mean(0) for row in range(len(h))])
    torch.testing.assert_close(means, expected)


def test_a_transformer_lens_cache_is_as_good_as_a_dict() -> None:
    from transformer_lens import ActivationCache

    lang, h, mask = batches(2)[1]
    model = SimpleNamespace(cfg=SimpleNamespace(n_layers=6))
    made = Moments(LANGS, LAYERS, WIDTH)
    made.update(lang, ActivationCache(cache(h), model), mask)
    assert torch.equal(made.mean, moments([(lang, h, mask)]).mean)
    missing = ActivationCache({hook_name("resid_post", 1): h[:, :, 0]}, model)
    with pytest.raises(
        SteerlabError, match=r"hold no 'blocks\.4\.hook_resid_post'; cache it, or leave layer 4 out"
    ):
        made.update(lang, missing, mask)


def test_a_second_site_reads_its_own_hook() -> None:
    lang, h, mask = batches(1)[0]
    both = {name: value * 0 for name, value in cache(h).items()}
    both |= {hook_name("resid_pre", layer): h[:, :, place] for place, layer in enumerate(LAYERS)}
    made = Moments(LANGS, LAYERS, WIDTH, site="resid_pre")
    made.update(lang, both, mask)
    assert torch.equal(made.mean, moments([(lang, h, mask)]).mean)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_raises_and_leaves_everything_as_it_was(value: float) -> None:
    given = batches(4)
    made, before = moments(given, sample=4), moments(given, sample=4)
    lang, h, mask = given[0]
    broken = h.clone()
    row, position = mask.nonzero()[0].tolist()
    broken[row, position, 0, 0] = value
    with pytest.raises(
        SteerlabError, match="the activations of 'en' hold NaN or infinity; .* weights are broken"
    ):
        made.update(lang, cache(broken), mask)
    for part in ("count", "rows", "mean", "last", "within"):
        assert torch.equal(getattr(made, part), getattr(before, part)), part


def test_wrong_shapes_languages_and_empty_texts_raise() -> None:
    made = Moments(LANGS, LAYERS, WIDTH)
    _, h, mask = batches(3)[2]
    narrow = {name: value[..., :2] for name, value in cache(h).items()}
    with pytest.raises(
        SteerlabError, match=r"hook_resid_post has shape \(3, 4, 2\), not mask x width \(3, 4, 3\)"
    ):
        made.update("en", narrow, mask)
    with pytest.raises(SteerlabError, match=r"not mask x width \(3, 3, 3\)"):
        made.update("en", cache(h), mask[:, 1:])
    with pytest.raises(SteerlabError, match="these moments have no 'fr'; they are for en de"):
        made.update("fr", cache(h), mask)
    for bad in (torch.zeros_like(mask), mask & torch.tensor([[True], [False], [True]])):
        with pytest.raises(SteerlabError, match="a text of 'de' has no token that counts"):
            made.update("de", cache(h), bad)
    with pytest.raises(SteerlabError, match="a text of 'de' has no token that counts"):
        made.update("de", cache(h[:0]), mask[:0])
    assert not made.count.any()
    with pytest.raises(SteerlabError, match="unknown language code 'xx'"):
        Moments(("en", "xx"), LAYERS, WIDTH)
    with pytest.raises(SteerlabError, match="there is no site 'mlp'"):
        Moments(LANGS, LAYERS, WIDTH, site="mlp")


def test_merging_what_does_not_belong_together_is_refused() -> None:
    def made(width: int = WIDTH, model: str = "a", **options: object) -> Moments:
        about = {"model": {"fingerprint": model}}
        return Moments(LANGS, LAYERS, width, provenance=about, **options)  # type: ignore[arg-type]

    for other, told in [
        (
            Moments(("de", "en"), LAYERS, WIDTH, provenance={"model": {"fingerprint": "a"}}),
            "languages",
        ),
        (Moments(LANGS, (1, 5), WIDTH), "layers"),
        (made(site="resid_pre"), "site resid_post and resid_pre"),
        (made(width=4), "width 3 and 4"),
        (made(scatter=True), "scatter False and True"),
        (made(sample=5), "sample None and 5"),
        (made(pairs_from="en"), "pairs from None and en"),
        (made(clouds=True), "clouds False and True"),
        (made(model="b"), "model a and b"),
    ]:
        with pytest.raises(SteerlabError, match=f"of a different kind cannot be merged: .*{told}"):
            made().merge(other)
    made().merge(made())


def test_a_view_of_some_layers() -> None:
    given = batches(6)
    made = moments(given, sample=4, pairs_from="en")
    assert made.pairs is not None
    made.pairs.update({lang: torch.randn(5, 2, WIDTH, generator=random(3)) for lang in LANGS})
    view = made.at(4)
    assert (view.layers, view.langs, view.width) == ((4,), LANGS, WIDTH)
    for part in ("mean", "pooled", "last"):
        assert torch.equal(getattr(view, part), getattr(made, part)[:, 1:])
    assert torch.equal(view.covariance(), made.covariance()[1:])
    assert torch.equal(view.need("sample").of(1), made.need("sample").of(1)[:, 1:])
    assert torch.equal(view.need("pairs").square, made.pairs.square[:, 1:])
    assert torch.equal(view.need("pairs").sample.of(1), made.pairs.sample.of(1)[:, 1:])
    assert torch.equal(made.at(4, 1).mean, made.mean[:, [1, 0]])
    with pytest.raises(SteerlabError, match="no layer 2 here; there are layers 1, 4"):
        made.at(1, 2)
    with pytest.raises(SteerlabError, match="name at least one of the layers 1, 4"):
        made.at()


def test_missing_parts_say_how_to_collect_them() -> None:
    bare = moments(batches(4), scatter=False)
    with pytest.raises(
        SteerlabError, match=r"hold no scatter; collect\(\.\.\., also=\['scatter'\]\) gathers it"
    ):
        bare.covariance()
    for part in ("sample", "pairs"):
        with pytest.raises(
            SteerlabError, match=rf"hold no {part}; collect\(\.\.\., also=\['{part}'\]\) gathers it"
        ):
            bare.need(part)
    with pytest.raises(SteerlabError, match="hold no text of de; update them with some, or leave"):
        moments(batches(1)).covariance()


# Reservoir


def numbered(count: int, start: int = 0) -> Tensor:
    """Tokens that say which they are [token 1 1]."""
    return torch.arange(start, start + count, dtype=torch.float32)[:, None, None]


def sampled(seed: int, *, size: int, count: int, block: int, start: int = 0) -> Reservoir:
    made = Reservoir(1, 1, 1, size=size, seed=seed)
    for first in range(0, count, block):
        made.update(0, numbered(min(block, count - first), start + first))
    return made


def uniformity(samples: list[list[int]], count: int, size: int) -> float:
    """The p-value of: every one of `count` tokens is as often in a sample of `size`."""
    found = np.bincount(np.concatenate(samples), minlength=count)
    expected = len(samples) * size / count
    statistic = ((found - expected) ** 2).sum() / expected / (1 - size / count) * (1 - 1 / count)
    return float(chi2.sf(statistic, count - 1))


def test_a_reservoir_is_a_uniform_sample() -> None:
    samples = [
        sampled(seed, size=8, count=40, block=9).of(0).flatten().int().tolist()
        for seed in range(1000)
    ]
    assert all(len(set(sample)) == 8 for sample in samples), "without replacement"
    assert uniformity(samples, 40, 8) > 1e-3
    skewed = [[*sample[:7], 0] for sample in samples]
    assert uniformity(skewed, 40, 8) < 1e-6, "the test sees a skew"


def test_a_reservoir_of_one_is_any_of_five() -> None:
    samples = [
        sampled(seed, size=1, count=5, block=2).of(0).flatten().int().tolist()
        for seed in range(1000)
    ]
    assert uniformity(samples, 5, 1) > 1e-3


def test_merged_reservoirs_are_a_uniform_sample_too() -> None:
    samples = []
    for seed in range(1000):
        whole = sampled(seed, size=7, count=10, block=4)
        whole.merge(sampled(seed + 5000, size=7, count=30, block=30, start=10))
        assert (whole.seen, whole.filled(0)) == ([40], 7)
        samples.append(whole.of(0).flatten().int().tolist())
    assert all(len(set(sample)) == 7 for sample in samples)
    assert uniformity(samples, 40, 7) > 1e-3
    share = np.mean([number < 10 for sample in samples for number in sample])
    assert share == pytest.approx(10 / 40, abs=0.01)


def test_a_reservoir_that_is_not_full_holds_everything() -> None:
    made = sampled(0, size=20, count=7, block=3)
    made.merge(sampled(1, size=20, count=5, block=5, start=7))
    assert sorted(made.of(0).flatten().tolist()) == list(range(12))
    with pytest.raises(SteerlabError, match="samples of .*20 and 9"):
        made.merge(sampled(1, size=9, count=5, block=5))


def test_the_same_seed_gives_the_same_sample() -> None:
    one, same, other = (sampled(seed, size=5, count=50, block=7).of(0) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# Paired


def test_paired_is_the_uncentred_second_moment_of_differences() -> None:
    langs = ("en", "de", "es")
    means = {
        lang: torch.randn(11, 2, WIDTH, generator=random(i)) + i for i, lang in enumerate(langs)
    }
    one, two = Paired("de", langs, 2, WIDTH), Paired("de", langs, 2, WIDTH)
    one.update({lang: value[:4] for lang, value in means.items()})
    two.update({lang: value[4:] for lang, value in means.items()})
    one.merge(two)
    for place, lang in enumerate(langs):
        difference = (means[lang] - means["de"]).double()
        torch.testing.assert_close(
            one.square[place].double(),
            torch.einsum("rlw,rlv->lwv", difference, difference),
            rtol=1e-5,
            atol=1e-5,
        )
        torch.testing.assert_close(one.total[place], difference.sum(0), rtol=1e-5, atol=1e-5)
    assert one.count.tolist() == [11, 0, 11], "the source has no difference from itself"
    centred = means["es"] - means["de"] - (means["es"] - means["de"]).mean(0)
    assert not torch.allclose(
        one.square[2], torch.einsum("rlw,rlv->lwv", centred, centred), rtol=0.1
    )
    with pytest.raises(
        SteerlabError, match="paired statistics of different sources or languages cannot be merged"
    ):
        one.merge(Paired("en", langs, 2, WIDTH))


def test_paired_keeps_differences_and_refuses_what_is_no_pair() -> None:
    langs = ("en", "de")
    means = {lang: torch.randn(6, 2, WIDTH, generator=random(i)) for i, lang in enumerate(langs)}
    one, two = (Paired("en", langs, 2, WIDTH, sample=10) for _ in range(2))
    one.update({lang: value[:4] for lang, value in means.items()})
    two.update({lang: value[4:] for lang, value in means.items()})
    one.merge(two)
    torch.testing.assert_close(one.sample.of(1), means["de"] - means["en"])
    assert one.sample.filled(0) == 0
    for unequal, told in (
        ({"en": means["en"][:5]}, "en 5, de 6"),
        ({"de": means["de"][:0]}, "en 6, de 0"),
    ):
        with pytest.raises(
            SteerlabError, match=f"the pairs are unequal: {told} sentences; give the same sentences"
        ):
            one.update(means | unequal)
    with pytest.raises(SteerlabError, match="the pairs are unequal: en 6, de 0 sentences"):
        one.update({"en": means["en"]})
    with pytest.raises(
        SteerlabError, match="the pairs' source 'fr' is none of en de; take it from these"
    ):
        Moments(langs, LAYERS, WIDTH, pairs_from="fr")
