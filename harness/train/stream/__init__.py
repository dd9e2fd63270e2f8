"""The fast path: training by the harness's own loop over streams of conversations."""
