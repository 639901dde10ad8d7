"""What an edit does to every language, not only to its own: matrices, dominance, asymmetry."""
