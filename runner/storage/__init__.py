"""Everything that outlives the process: ledger, git, claims, the pinned evaluation, paths and the lock."""
