"""What was asked: variants, suites, models and devices, resolved into plans."""
