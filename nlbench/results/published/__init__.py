"""Published numbers, with their sources, and what they can be compared with."""
