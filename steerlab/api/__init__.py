"""The groups of the door that gather names from several folders: `sl.units`, `sl.stats` and the
like."""
