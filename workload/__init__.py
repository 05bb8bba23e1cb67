"""A small GPT pretraining program: everything in this folder may change between experiments.

`train.py` is where a run starts, `model.py` is what scoring loads, `checkpoint.py` publishes what it loads,
`sizes/` holds the numbers that differ between profiles. Every number worth trying is a named constant at the top
of its file.
"""

import time

STARTED_AT = time.monotonic()
"""First instruction of this package: the run's deadline counts from here."""
