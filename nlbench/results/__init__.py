"""What do the records say? Without torch."""
