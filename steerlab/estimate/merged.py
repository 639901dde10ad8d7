"""Languages that share a vector: a group's mean in place of each member's own."""

from collections.abc import Mapping

import torch

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families
from steerlab.estimate.controls import with_vectors


def merged(
    directions: Directions, groups: Mapping[str, str] | None = None, *, without_own: bool = False
) -> Directions:
    """Give every language the mean vector of its group, such as its family.

    The means stay each language's own, so strength 1 remains the gap of the language itself along
    the group's direction. Groups of one keep their vector. With `without_own` a language's own
    vector is left out of its group's mean: what remains is what its relatives know of it, and
    groups of one raise. The control gives languages to groups of the same sizes at random. Two
    languages of one group have no direction between them, and `between` says so. Raises
    `SteerlabError` for a language without a group.

    Args:
        directions: one vector for each language.
        groups: the group of each language; families by default.
        without_own: leave each language out of its own mean.
    """
    langs = directions.langs
    groups = dict(zip(langs, families(langs), strict=True)) if groups is None else dict(groups)
    missing = [lang for lang in langs if lang not in groups]
    if missing:
        raise SteerlabError(
            f"no group is named for {', '.join(missing)}; name one for each of {', '.join(langs)}"
        )
    names = [groups[lang] for lang in langs]
    same = torch.tensor([[a == b for b in names] for a in names])
    if without_own:
        same &= ~torch.eye(len(langs), dtype=torch.bool)
        alone = [
            lang for lang, others in zip(langs, same.any(1).tolist(), strict=True) if not others
        ]
        if alone:
            raise SteerlabError(
                f"{', '.join(alone)} is alone in its group, and nothing is left without it; put it "
                "into a larger group, or choose languages that have company"
            )
    weights = same / same.sum(1, keepdim=True)
    vectors = torch.einsum("ab,blw->alw", weights.to(directions.vectors), directions.vectors)
    label = "merged without own" if without_own else "merged"
    name = f"{directions.estimator} {label}"
    return with_vectors(directions, vectors, name, source=directions.source)
