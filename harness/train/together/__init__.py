"""Several plans trained together: their adapters on one frozen base, one forward pass for all."""
