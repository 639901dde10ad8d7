"""Differences of means: DiffMean, what it averages and what it sets a target against."""

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.build import Contrast, build, named, need_moments, source_of, weights_of
from steerlab.estimate.record import Estimator

READS = {"tokens": "mean", "texts": "pooled", "last": "last"}


def diffmean(
    moments: Moments, *, read: str = "tokens", contrast: Contrast = None, source: str = "en"
) -> Directions:
    """Language means; their differences are the directions (DiffMean).

    Formula: v_k = mean of h over language k, so that any language may be the source.
    `read="tokens"` averages every token, `"texts"` the texts' means (each sentence counts once),
    `"last"` each text's last token: its directions point from the source's last tokens to the
    target's, which need not be from the mean of all tokens to the other. `contrast` sets targets
    against the same languages whatever is steered, and fits for one `source`: "rest" (all others),
    "centre" (the mean of all tokens read: mean-centring, arXiv 2312.03813), a code such as "en",
    "clas" (ru, de, zh) or several codes. Source: CLaS-Bench (Gurgurov et al. 2026), where target
    less source is the strongest method on average.

    Args:
        moments: what was read.
        read: `tokens`, `texts` or `last`: what is averaged.
        contrast: the languages that every target is set against; by default the steered source.
        source: the source that a fit with a contrast is for.
    """
    if read not in READS:
        raise SteerlabError(f"diffmean reads 'tokens', 'texts' or 'last', not {read!r}")
    need_moments(moments)
    moments.need_texts()
    means, only = getattr(moments, READS[read]), source_of(moments, contrast, source)
    name = named("diffmean" if read == "tokens" else f"diffmean {read}", contrast)
    if contrast is None:
        return build(moments, means, name)
    weights = weights_of(moments, contrast, source)
    vectors = means - (weights @ means.flatten(1)).view_as(means)
    vectors[moments.langs.index(source)] = 0
    return build(moments, vectors, name, source=only)


RECORDS = {
    "diffmean": Estimator(
        make=diffmean,
        estimates="mean difference",
        cites=("gurgurov2026clas",),
    ),
    "diffmean texts": Estimator(make=diffmean, knobs={"read": "texts"}),
    "diffmean last": Estimator(make=diffmean, knobs={"read": "last"}),
    "diffmean against rest": Estimator(make=diffmean, knobs={"contrast": "rest"}, sourced=True),
    "diffmean against centre": Estimator(
        make=diffmean,
        knobs={"contrast": "centre"},
        sourced=True,
        cites=("gurgurov2026clas", "jorgensen2023mean"),
    ),
    "diffmean against en": Estimator(make=diffmean, knobs={"contrast": "en"}, sourced=True),
    "diffmean against clas": Estimator(make=diffmean, knobs={"contrast": "clas"}, sourced=True),
}
