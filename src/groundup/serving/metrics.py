"""What Prometheus reads of a server, under names that end as vLLM's do."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from groundup.serving.driver import Driver, Stream

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 60)


class Metrics:
    """Counts what a driver writes.

    Args:
        driver: The driver.
    """

    def __init__(self, driver: Driver) -> None:
        self.registry = CollectorRegistry()
        engine = driver.engine

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"groundup_{name}", text, registry=self.registry)

        gauge("num_requests_running", "Texts that have a slot").set_function(lambda: engine.running)
        gauge("num_requests_waiting", "Requests that wait for slots").set_function(
            lambda: driver.waiting
        )
        gauge("kv_cache_usage_perc", "The share of the slots in use, from 0 to 1").set_function(
            lambda: 1 - engine.pool.free / engine.pool.slots
        )
        gauge("forward_passes", "Passes through the model so far").set_function(
            lambda: engine.passes
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts")
        self.generation_tokens = self._counter("generation_tokens", "Tokens that were written")
        self.success = Counter(
            "groundup_request_success",
            "Texts that are over, by reason",
            ["finished_reason"],
            registry=self.registry,
        )
        self.first_token = self._histogram("time_to_first_token_seconds", "To the first token")
        self.between = self._histogram("inter_token_latency_seconds", "Between two tokens")
        self.whole = self._histogram("e2e_request_latency_seconds", "From request to answer")

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"groundup_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"groundup_{name}", text, buckets=SECONDS, registry=self.registry)

    def count(self, stream: Stream, prompt: int, written: list[int], seconds: float) -> None:
        """Count a request that is answered.

        Args:
            stream: Its texts.
            prompt: The tokens of its prompts.
            written: The tokens of each of its texts.
            seconds: The seconds from its beginning to its end.
        """
        self.prompt_tokens.inc(prompt)
        self.generation_tokens.inc(sum(written))
        self.whole.observe(seconds)
        if stream.first is not None:
            self.first_token.observe(stream.first)
            if (longest := max(written)) > 1:
                self.between.observe((seconds - stream.first) / (longest - 1))

    def page(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self.registry)
