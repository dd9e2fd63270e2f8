"""What happened: records, the folders they lie in, and the events of a run under way."""
