"""GGUF: a merged model in llama.cpp's file format, written, weighed and read back."""
