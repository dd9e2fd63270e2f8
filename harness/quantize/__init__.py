"""How base weights are quantized: everything about a scheme stands in that scheme's file."""
