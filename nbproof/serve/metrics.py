"""What a server counts, for Prometheus."""

from functools import cache

from prometheus_client import Counter, Histogram

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
# By their labels, for which Prometheus takes a lock each time.
requests = cache(Counter("nbproof_requests", "Requests", ["path", "status"]).labels)
seconds = cache(Histogram("nbproof_request_seconds", "Time", ["path"], buckets=SECONDS).labels)
answers = cache(Counter("nbproof_answers", "Predictions; known: the model did not abstain",
                        ["version", "known"]).labels)
log_lost = Counter("nbproof_log_lost", "Predictions that the log did not keep")
