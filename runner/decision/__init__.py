"""Pure statistics: the keep rule, what edits are worth, early stopping, and what the history says."""
