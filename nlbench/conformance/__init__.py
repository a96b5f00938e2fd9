"""Check a method file: `nlbench check`.

`runner` runs the functions of `checks`, which ask a `lab` for the outcomes of trials. A `trial`
holds what is varied in a training, `made_up_data` makes its examples, and a `watch` observes it,
with `read_only`, `forms` and `snapshot`. `outcome` compares two trainings; `advice` and
`resume_causes` name the likely fix.
"""
