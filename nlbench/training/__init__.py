"""One run: RunSpec -> RunRecord. All that a record's numbers depend on."""
