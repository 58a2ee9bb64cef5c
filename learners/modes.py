"""How an experiment says that a value is searched or learned, in a module that needs no torch."""

SEARCH, LEARN = "search", "learn"
