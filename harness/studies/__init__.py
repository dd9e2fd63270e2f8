"""How a question becomes an answer: tune on validation, add seeds until decided, report."""
