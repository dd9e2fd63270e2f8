"""Statistics of a report: noise, shares, moderation, multiplicity, power and verdicts."""
