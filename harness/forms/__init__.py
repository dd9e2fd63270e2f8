"""Trained adapter -> what can be deployed: merged, dequantized, quantized again, GGUF."""
