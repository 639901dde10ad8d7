"""The main study: choose on dev, report on test beside controls, and the page of it."""
