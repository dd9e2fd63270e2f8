"""Trackers: listeners that hand runs to other programs, a file for each."""
