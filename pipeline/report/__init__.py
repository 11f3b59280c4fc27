"""The report: one page with the numbers, curves and pictures of a whole run."""
