"""Report: a pure function of RunRecords and their per-item values."""
