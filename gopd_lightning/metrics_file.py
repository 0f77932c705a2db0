from gopd_callbacks.metrics_file import MetricsFile  # noqa: F401
