"""Which runs does this suite stand for? Without torch."""
