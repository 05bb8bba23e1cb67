"""One program → one trial that can be believed: train, score, audit."""
