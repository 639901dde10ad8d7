"""Differences of means: DiffMean, what it averages and what it sets a target against."""

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.core.text_vectors import TextVectors
from steerlab.estimate.build import Contrast, build, named, need_moments, source_of, weights_of
from steerlab.estimate.instances import of_instances
from steerlab.estimate.record import Estimator

READS = {"tokens": "mean", "texts": "pooled", "last": "last"}


def diffmean(
    moments: Moments | TextVectors,
    *,
    read: str = "tokens",
    contrast: Contrast = None,
    source: str = "en",
    select: str | None = None,
    k: int = 50,
    seed: int = 0,
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

    With `select` the means are of `k` pairs alone, the same sentences in the source and in the
    target, at each layer: those whose two vectors have the largest cosine distance, `farthest`
    (FlexAC's instance selection, arXiv 2510.11190, whose K is not published), the smallest,
    `nearest`, or any, `random`, its control. It needs single texts (`collect_texts`), and fits for
    one `source`.

    Args:
        moments: what was read; or the vectors of single texts.
        read: `tokens`, `texts` or `last`: what is averaged.
        contrast: the languages that every target is set against; by default the steered source.
        source: the source that a fit with a contrast, or of single texts, is for.
        select: which pairs of single texts; by default all.
        k: how many of them.
        seed: of `random`.
    """
    if isinstance(moments, TextVectors):
        if contrast is not None or read != "tokens":
            raise SteerlabError("of single texts there is no contrast and no read; leave them out")
        return of_instances(moments, source=source, select=select, k=k, seed=seed)
    if select is not None:
        raise SteerlabError(
            f"select={select!r} chooses among single texts, which Moments do not keep; give "
            "collect_texts(model, corpus)"
        )
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
