"""What plugs into Lightning's Trainer: sampling, display, logs, plots, checkpoints on Ctrl-C, export."""

from gopd_callbacks.graceful_stop import GracefulStop
from gopd_callbacks.hf_export import HFExport
from gopd_callbacks.plot import Plot
from gopd_callbacks.progress import Progress
from gopd_callbacks.rollout_log import RolloutLog
from gopd_callbacks.metrics_file import MetricsFile

__all__ = ["GracefulStop", "HFExport", "MetricsFile", "Plot", "Progress", "RolloutLog"]
