"""Reproducible, reviewable machine-learning pipelines of notebooks, run by DVC."""
