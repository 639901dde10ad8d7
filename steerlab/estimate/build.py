"""What every estimator ends with: `Directions` that say how they were made, and against what.

A contrast says what a target language is set against: "source", "rest", "clas", "centre", a
language's code, or several; `negatives` and `weights_of` read it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.core.moments import Moments

# CLaS-Bench's negatives, and what stands in for one of them that is the target itself.
NEGATIVES = ("ru", "de", "zh")
SPARE = "fr"
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
    """Make `Directions` of an estimator's vectors.

    Args:
        moments: what the vectors were estimated from; it gives means, languages, layers, site.
        vectors: one for each language and layer.
        estimator: its name, with what distinguishes the variant.
        basis: the subspace of each language; by default each language's vector less the mean of
            all, at unit length.
        source: the one language that directions lead from; None for any.
        extra: what only some operators need, by name.
        settings: the estimator's knobs.
    """
    need_two(moments)
    if basis is None:
        # Vectors that are fitted from a source already leave out what all share.
        centred = vectors if source else vectors - vectors.mean(0, keepdim=True)
        # A zero vector stays zero.
        length = centred.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        basis = rearrange(centred / length, "lang layer width -> lang layer 1 width")
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
    against = contrast if isinstance(contrast, str) else " ".join(contrast)
    return f"{estimator} against {against}"


def need_moments(moments: Any) -> None:
    """Raise for what is no `Moments`, and say what makes them."""
    if not isinstance(moments, Moments):
        raise SteerlabError(
            f"moments are needed, not a {type(moments).__name__}; give collect(model, corpus)"
        )


def need_two(moments: Moments) -> None:
    """Raise where there is one language only: a direction leads from one to another."""
    need_moments(moments)
    if len(moments.langs) < 2:
        raise SteerlabError(
            f"these moments are of {' '.join(moments.langs)} alone; a direction needs two languages"
        )


def source_of(moments: Moments, contrast: Contrast, source: str) -> str | None:
    """The one source that a fit with this contrast is good for; None without a contrast: any.

    Raises where the moments do not have that language.
    """
    if contrast is None:
        return None
    if source not in moments.langs:
        raise SteerlabError(
            f"the source {source!r} is none of {' '.join(moments.langs)}; take it from these"
        )
    return source


def negatives(moments: Moments, contrast: Contrast, *, target: str, source: str) -> list[int]:
    """The indices of the languages that a target is set against.

    Args:
        moments: what is estimated from.
        contrast: "source", "rest" (all others), a language's code, "clas" (CLaS-Bench's ru, de, zh;
            fr stands in for one that is the target itself), or several codes, of which the target
            itself is left out.
        target: the language that is set against others.
        source: the source language.
    """
    if contrast == "source":
        return [moments.langs.index(source)]
    if contrast == "rest":
        return [index for index, lang in enumerate(moments.langs) if lang != target]
    if contrast == "clas":
        chosen = [SPARE if lang == target else lang for lang in NEGATIVES]
    elif isinstance(contrast, str):
        chosen = [contrast]
    else:
        chosen = [lang for lang in contrast or () if lang != target]
    _need_langs(moments, chosen, contrast)
    return [moments.langs.index(lang) for lang in chosen]


def weights_of(moments: Moments, contrast: Contrast, source: str) -> Float[Tensor, "lang negative"]:
    """Weights that average the languages each target is set against: row t is for target t.

    The row of the source is zero. Beside what `negatives` takes, the contrast may be "centre": all
    tokens that were read, the target's too (mean-centring).
    """
    rows = torch.zeros(len(moments.langs), len(moments.langs), dtype=torch.float64)
    for index, lang in enumerate(moments.langs):
        if lang == source:
            continue
        if contrast == "centre":
            # Languages count by their tokens, so that this is the mean of all tokens.
            rows[index] = moments.count / moments.count.sum()
        else:
            chosen = negatives(moments, contrast, target=lang, source=source)
            rows[index, chosen] = 1 / len(chosen)
    return rows


def _need_langs(moments: Moments, langs: Sequence[str], contrast: Contrast) -> None:
    """Raise unless there is a language in the contrast and the moments have all of them."""
    if langs and all(lang in moments.langs for lang in langs):
        return
    for lang in langs:
        # What looks like a code and is none has a message of its own.
        if len(lang) == 2:
            language(lang)
    raise SteerlabError(
        f"the contrast {contrast!r} asks for {' '.join(langs) or 'nothing'}; there are "
        f"{' '.join(moments.langs)}: "
        "give 'source', 'rest', 'clas', a language's code or several"
    )
