"""The nouns that travel between folders: languages, sites, corpus, moments, directions and the
like."""
