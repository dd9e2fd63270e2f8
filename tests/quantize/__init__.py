"""Tests of quantization schemes."""
