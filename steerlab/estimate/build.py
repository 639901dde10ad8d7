"""What every estimator ends with: `Directions` that say how they were made, and against what."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.core.moments import Moments

NEGATIVES, SPARE = (
    ("ru", "de", "zh"),
    "fr",
)  # CLaS-Bench's, and what stands in for one that is the target itself
Contrast = str | Sequence[str] | None


def build(
    moments: Moments,
    vectors: Float[Tensor, "lang layer width"],
    estimator: str,
    *,
    basis: Float[Tensor, "lang layer rank width"] | None = None,
    source: str | None = None,
    extra: Mapping[str, Tensor] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Directions:
    """Directions of these vectors; the basis is, unless given, each language's vector less the
    mean of all."""
    need_two(moments)
    if basis is None:
        # Vectors that are fitted from a source already leave out what all share.
        centred = vectors if source else vectors - vectors.mean(0, keepdim=True)
        basis = (centred / centred.norm(dim=-1, keepdim=True).clamp(min=1e-30))[:, :, None]
    return Directions(
        vectors=vectors.float(),
        basis=basis.float(),
        means=moments.mean.float(),
        langs=moments.langs,
        layers=moments.layers,
        site=moments.site,
        source=source,
        provenance={**moments.provenance, "estimator": estimator, "settings": dict(settings or {})},
        extra={name: value.float() for name, value in (extra or {}).items()},
    )


def named(estimator: str, contrast: Contrast) -> str:
    """The estimator's name with what it is set against."""
    if contrast is None:
        return estimator
    return f"{estimator} against {contrast if isinstance(contrast, str) else ' '.join(contrast)}"


def need_two(moments: Moments) -> None:
    """Raise where there is one language only: a direction leads from one to another."""
    if len(moments.langs) < 2:
        raise SteerlabError(
            f"these moments are of {' '.join(moments.langs)} alone; a direction needs two languages"
        )


def source_of(moments: Moments, contrast: Contrast, source: str) -> str | None:
    """The one source that a fit with this contrast is good for; None without a contrast: any."""
    if contrast is None:
        return None
    if source not in moments.langs:
        raise SteerlabError(
            f"the source {source!r} is none of {' '.join(moments.langs)}; take it from these"
        )
    return source


def negatives(moments: Moments, contrast: Contrast, *, target: str, source: str) -> list[int]:
    """The places of the languages that a target is set against.

    `contrast` is "source", "rest" (all others), a language's code, "clas" (CLaS-Bench's ru, de, zh;
    for one that is the target itself stands fr), or several codes, of which the target itself is
    left out.
    """
    if contrast == "source":
        return [moments.langs.index(source)]
    if contrast == "rest":
        return [place for place, iso in enumerate(moments.langs) if iso != target]
    if isinstance(contrast, str) and contrast != "clas":
        _known(moments, [contrast], contrast)
        return [moments.langs.index(contrast)]
    chosen = [iso for iso in contrast or () if iso != target]
    if contrast == "clas":
        chosen = [SPARE if iso == target else iso for iso in NEGATIVES]
    _known(moments, chosen, contrast)
    return [moments.langs.index(iso) for iso in chosen]


def weights_of(moments: Moments, contrast: Contrast, source: str) -> Float[Tensor, "lang negative"]:
    """Row t averages the languages that target t is set against; the row of the source is zero.

    Beside what `negatives` takes, "centre": all tokens that were read, the target's too
    (mean-centring).
    """
    rows = torch.zeros(len(moments.langs), len(moments.langs), dtype=torch.float64)
    for place, iso in enumerate(moments.langs):
        if iso == source:
            continue
        if contrast == "centre":
            rows[place] = moments.count / moments.count.sum()
        else:
            chosen = negatives(moments, contrast, target=iso, source=source)
            rows[place, chosen] = 1 / len(chosen)
    return rows


def _known(moments: Moments, asked: Sequence[str], contrast: Contrast) -> None:
    if not asked or any(iso not in moments.langs for iso in asked):
        for iso in asked:
            if len(iso) == 2:
                language(iso)
        raise SteerlabError(
            f"the contrast {contrast!r} asks for {' '.join(asked) or 'nothing'}; there are "
            f"{' '.join(moments.langs)}: "
            "give 'source', 'rest', 'clas', a language's code or several"
        )
