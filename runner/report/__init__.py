"""Reports on a campaign, for people, spreadsheets, git, and the model. Pure functions of its experiments.

summary     which experiments count, and the campaign in one paragraph
table       experiments as tables: terminal, pipe, `results.tsv`
explain     why one experiment got its verdict, and what its audit found
findings    what was really found: measured gains and the debiased curve
drift       whether the machine changed meanwhile
sealed      scores on the sealed test rows: the only report that sees them
notes       early stops, certificates, noise
tip_progress  the tip between two certificates
effort      hours and money
plot        `progress.png`, and a comparison of keep rules
transcript  a conversation with a language model
"""
