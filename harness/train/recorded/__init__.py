"""The recorded path: autograd over a model's own forward pass, replayed as CUDA graphs."""
