"""Check that this machine keeps the promises of the sandbox, from outside and from inside real containers.

`examination` runs all checks. `host` examines the machine and its engine, and `versions` knows the flaws of old
versions. `probes` runs candidates of our own (`inside/`) in the sandbox, on the `ground`; `surroundings` and
`judgement` compare their reports with what should be there. `daemon` stops the engine's daemon for a moment, and
`finding` is one result and its acceptance.

Nothing of a campaign is changed. Probes take the controller's lock, so that no campaign is disturbed.
"""

from runner.sandbox.doctor.examination import announce, examine, refuse_unfit
from runner.sandbox.doctor.finding import NAMES, Finding, check_names

__all__ = ["NAMES", "Finding", "announce", "check_names", "examine", "refuse_unfit"]
