"""One night, and one experiment from idea to verdict."""
