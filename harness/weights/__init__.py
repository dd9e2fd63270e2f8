"""Base weights -> quantized model -> adapter attached -> census."""
