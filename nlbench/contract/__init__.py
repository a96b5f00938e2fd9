"""What a method's class must look like, and what its hooks must return.

`hooks` looks at a class before anything trains. `returned` looks at a value in the step that made
it. Both raise or list what is wrong together with the likely fix. `strong` tells whether a method
uses strong views, which a run's key has to say.
"""
