"""Does this machine hold what the sandbox promises? Examined from outside, and from inside real containers.

`examination` is the whole of it. `host` looks at machine and engine, `versions` knows what is wrong with old
ones, `probes` sends candidates of our own (`inside/`) into the sandbox, `judgement` says what they should have
found, `daemon` stops the engine's daemon for a moment, `finding` is one result and how it is accepted.

Nothing of a campaign is changed. Probes take the controller's lock, so that no night is disturbed.
"""

from runner.sandbox.doctor.examination import announce, examine
from runner.sandbox.doctor.finding import NAMES, Finding, check_names

__all__ = ["NAMES", "Finding", "announce", "check_names", "examine"]
