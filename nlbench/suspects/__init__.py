"""`nlbench suspects` and `nlbench relabel`: which training labels look wrong?

`labelling` reads the runs and `ranking` orders the examples. `listing`, `page` and `pictures` show
them, `quality` compares them with the true labels, and `relabel` writes a list anew.
"""
