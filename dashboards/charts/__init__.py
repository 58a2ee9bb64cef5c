"""Interactive charts: what Plotly draws, as plain values, with a table that says the same."""
