"""Figures: a file for each kind, which holds what it shows and how it is painted."""
