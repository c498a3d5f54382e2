"""What a server counts, for Prometheus."""

import functools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self):
        self.own = CollectorRegistry()

        def made(kind, name: str, text: str, *labels: str, **options):
            return kind(f"nbproof_{name}", text, labels, registry=self.own, **options)

        requests = made(Counter, "requests", "Requests by path and status", "path", "status")
        seconds = made(Histogram, "request_seconds", "Time of a request", "path", buckets=SECONDS)
        answers = made(Counter, "answers", "Predictions by version; known: not abstained",
                       "version", "known")
        # To find a counter by its labels takes a lock each time.
        self.requests, self.seconds, self.answers = map(
            functools.cache, (requests.labels, seconds.labels, answers.labels))
        self.shadow = made(Counter, "shadow", "The challenger's predictions by agreement", "agrees")
        self.shadow_missed = made(Counter, "shadow_missed", "Requests without room for it")
        self.shadow_failed = made(Counter, "shadow_failed", "Requests on which it failed")
        self.refused = made(Counter, "refused", "Versions that were refused", "alias")
        self.registry = made(Gauge, "registry_up", "Whether the registry names a champion")
        self.log_lost = made(Counter, "log_lost", "Predictions that the log did not keep")
