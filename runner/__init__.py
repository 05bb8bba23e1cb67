"""The host controller: proposes, builds, runs, judges and keeps. Trusted; never imports torch."""
