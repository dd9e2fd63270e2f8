"""The train room: the order of rows, the training loops and what they report."""
