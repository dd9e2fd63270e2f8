"""Score: what a model is worth, per item, in one precision: perplexity, tasks, preference, text."""
