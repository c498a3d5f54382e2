"""The graph of stages: read, checked, run, compared."""
