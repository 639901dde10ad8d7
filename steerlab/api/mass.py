"""Language mass: how much of the next token's probability lies on a language's own tokens."""

from steerlab.engine.language_mass import (
    gold_masses,
    language_masses,
    lexicon,
    mass_shift,
    mass_summary,
)

__all__ = [
    "gold_masses",
    "language_masses",
    "lexicon",
    "mass_shift",
    "mass_summary",
]
