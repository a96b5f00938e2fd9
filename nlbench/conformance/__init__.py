"""Check a method file: `nlbench check`."""
