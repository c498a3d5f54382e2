"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self):
        own = self.own = CollectorRegistry()
        self.requests = Counter("nbproof_requests", "Requests by path and status", ["path", "status"], registry=own)
        self.seconds = Histogram("nbproof_request_seconds", "Time that a request took", ["path"], buckets=SECONDS,
                                 registry=own)
        self.answers = Counter("nbproof_answers", "Cases by model version, and whether they got an answer",
                               ["version", "known"], registry=own)
        self.shadow = Counter("nbproof_shadow", "Cases that the shadow was asked, and whether it agreed", ["agrees"],
                              registry=own)
        self.shadow_missed = Counter("nbproof_shadow_missed", "Questions that the shadow had no time for", registry=own)
        self.shadow_failed = Counter("nbproof_shadow_failed", "Questions that the shadow could not answer",
                                     registry=own)
        self.again = Counter("nbproof_asked_again", "Times that a replica was lost or silent, and another asked",
                             registry=own)
        self.swaps = Counter("nbproof_swaps", "Times that a model was swapped", registry=own)
        self.refused = Counter("nbproof_refused", "Models that were refused", ["alias"], registry=own)
        self.registry = Gauge("nbproof_registry_up", "Whether the registry answers and names a champion", registry=own)
        self.log_lost = Counter("nbproof_log_lost", "Answers that the log did not keep", registry=own)
        self.labels = Counter("nbproof_labels", "Labels that people gave", registry=own)
        self.model = Info("nbproof_model", "The models that answer", registry=own)
        self._children: dict = {}

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one request; the children are kept, because prometheus_client's search for them takes a lock."""
        if (path, status) not in self._children:
            self._children[path, status] = self.requests.labels(path, status), self.seconds.labels(path)
        count, took = self._children[path, status]
        count.inc()
        took.observe(seconds)

    def answered(self, version: str, known: bool) -> None:
        """Count one case."""
        self.answers.labels(version, str(known).lower()).inc()

    def serves(self, champion, shadow, swapped: bool) -> None:
        """Say which models answer now."""
        self.model.info({
            "version": champion.version, "model": champion.name, "shadow_version": shadow.version if shadow else "",
            "shadow": shadow.name if shadow else "",
        })
        if swapped:
            self.swaps.inc()

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self.own)
