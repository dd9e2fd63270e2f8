"""How fast the harness is beside a peer, and whether that got worse."""
