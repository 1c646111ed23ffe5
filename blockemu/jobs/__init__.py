"""Background jobs: the common life of all of them, and one module for each kind."""
