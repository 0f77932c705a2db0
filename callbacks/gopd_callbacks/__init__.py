"""What plugs into Lightning's Trainer: rollouts, display, logs, plots, results, checkpoints on Ctrl-C, export."""

from gopd_callbacks.engine import Engine
from gopd_callbacks.evaluation import Evaluation
from gopd_callbacks.graceful_stop import GracefulStop
from gopd_callbacks.heartbeat import Heartbeat
from gopd_callbacks.hf_export import HFExport
from gopd_callbacks.plot import Plot
from gopd_callbacks.progress import Progress
from gopd_callbacks.requeue import Requeue
from gopd_callbacks.results import Baselines, Results
from gopd_callbacks.rollout import Rollout
from gopd_callbacks.rollout_log import RolloutLog
from gopd_callbacks.self_test import SelfTest
from gopd_callbacks.speed import Speed
from gopd_callbacks.target_curve import TargetCurve

__all__ = [
    "Baselines",
    "Engine",
    "Evaluation",
    "GracefulStop",
    "HFExport",
    "Heartbeat",
    "Plot",
    "Progress",
    "Requeue",
    "Results",
    "Rollout",
    "RolloutLog",
    "SelfTest",
    "Speed",
    "TargetCurve",
]
