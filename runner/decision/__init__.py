"""Pure statistics: the keep rule, the prior over effects, early stopping, history and simulation."""
