"""One file per method; the file name is the name of the method."""
