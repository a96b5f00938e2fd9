"""Kinds of noise with a file of their own, which is called after the kind."""
