"""The card of an SAE's feature: where it fires, on what, and which tokens it promotes, as one
page of HTML."""

from steerlab.studies.feature_card.page import feature_card, feature_cards

__all__ = ["feature_card", "feature_cards"]
