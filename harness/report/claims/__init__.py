"""Claims: published sentences judged from records, by the statistics of the report."""
