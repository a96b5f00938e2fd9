"""How do other people see the results? One HTML page without a network, and a folder to publish.

`page.render` returns the page of a store, `publication.publish` writes the folder. Both are made of
plans and records alone, and the same store gives the same bytes.
"""
