"""A benchmark harness that compares fine-tuning variants under one fair protocol."""

__version__ = "0.1.0"
