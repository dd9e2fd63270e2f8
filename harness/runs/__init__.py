"""How plans become records: a child process a run, watched over by its parent."""
