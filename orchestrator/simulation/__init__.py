"""Searches without training: the search's own decisions, against a table of results and a simulated clock."""
