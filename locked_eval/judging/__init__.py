"""The judge and the audit's arithmetic: numpy only, on the host, never near the candidate.

judge          claims → bits per byte
draw           which position of each row an audit asks about
plan           the rows that the audit's containers answer
distributions  logits → probabilities, and how far two answers differ
estimate       overstatements → mean, standard error, charge
findings       what claims are refused for
verify         all of it together: claims against the audit's logits
"""
