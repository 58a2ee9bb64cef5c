"""The report of a search as one HTML file that holds everything: to mail, to print, to attach to a paper."""
