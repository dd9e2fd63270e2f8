"""Everything that can be added to the harness, added from outside and run."""
