"""Measured and planned costs: time, memory, energy, throughput, environment."""
