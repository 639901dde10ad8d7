"""Questions answered end to end: the main study, CLaS-Bench, the card of a feature."""
