"""Corpus: OASST trees become conversations, and conversations become token sequences."""
