"""Notebooks, and the proof of them: a machine-learning pipeline of notebooks that DVC runs like code."""
