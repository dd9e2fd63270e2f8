"""Several processes that carry out one plan together, one for each device."""
