"""What a plan will need, predicted before anything is loaded."""
