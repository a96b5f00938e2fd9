"""`nlbench reproduce`: train finished runs again, and compare their numbers.

`draw` chooses runs, `source` makes them of their records, and `again` trains and compares them.
"""
