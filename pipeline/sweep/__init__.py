"""Many trials of one model's notebook, on Ray Tune: on this machine or on a cluster."""
