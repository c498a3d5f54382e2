"""Many trials of one notebook, proposed and stopped early by Optuna, executed by Ray here or on a cluster."""
