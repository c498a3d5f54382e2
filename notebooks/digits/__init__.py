"""What the notebooks share: data, training, comparison, tracking and plots."""
