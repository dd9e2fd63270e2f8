"""Checks before anything runs: what a plan says, then what the data and the disk hold."""
