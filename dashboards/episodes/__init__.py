"""The episodes of a search, page by page: what is asked, which parts may hold it, and the rows."""
