"""A stand-in for a vLLM server: the routes that gopd asks, answers that follow from prompt, seed and weights."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from safetensors.torch import load_file


class FakeVLLM(ThreadingHTTPServer):
    """Starts at once, on a port of its own; every attribute may be changed while it runs."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port=0):
        self.asked = Counter()  # by path, and by method of the extension
        self.weights, self.stamp, self.loaded = 0, "default", []
        self.mode, self.room, self.extension, self.clean = "processed_logprobs", 64, True, True
        self.load_error, self.busy, self.interrupted = "", 0, 0
        self.on_generate = lambda number: 200  # status of the nth request; it may wait, or change this server
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()

    def restart(self):
        """As a server that was killed and started again: without the weights that it was given."""
        self.weights, self.stamp = 0, "default"

    def handle_error(self, *args):
        """Callers may leave without their answer."""

    def route(self, path, body):
        """Status and answer."""
        self.asked[path] += 1
        name = path.split("?")[0].strip("/").replace("/", "_")
        return getattr(self, f"on_{name}", lambda _: (200, {}))(body)

    def on_pause(self, _):
        self.interrupted += self.busy > 0
        return 200, {}

    def on_weight_info(self, _):
        return 200, {"weight_version": self.stamp}

    def on_reset_prefix_cache(self, _):
        return 200, {"success": self.clean}

    def on_update_weight_version(self, body):
        self.stamp = body["new_version"]
        return 200, {}

    def on_collective_rpc(self, body):
        if not self.extension:
            return 404, {"detail": "Not Found"}
        self.asked[body["method"]] += 1
        if body["method"] == "gopd_describe":
            return 200, {"results": [{"logprobs_mode": self.mode, "max_model_len": self.room}]}
        if body["method"] == "gopd_load_weights":
            return 200, {"results": [self.load(Path(body["args"][0]))]}
        return 200, {"results": [None]}

    def load(self, folder):
        if self.load_error:
            return {"error": self.load_error}
        weights = {name: x for file in folder.glob("*.safetensors") for name, x in load_file(file).items()}
        self.loaded.append(weights)
        self.weights = round(float(sum(x.sum() for x in weights.values())))
        return {}

    def on_inference_v1_generate(self, body):
        self.busy += 1
        status = self.on_generate(self.asked["/inference/v1/generate"])
        self.busy -= 1
        if status != 200:
            return status, {"error": {"message": "too bad"}}
        prompt, asked = body["token_ids"], body["sampling_params"]
        if "prompt_logprobs" in asked:
            scores = [None, *({str(i): {"logprob": -i / 8}} for i in prompt[1:])]
            return 200, {"prompt_logprobs": scores, "choices": []}
        ids = [sum(prompt) % 50 + 2, asked["seed"] % 50 + 2, self.weights + 2, 1][: asked["max_tokens"]]
        choice = {
            "token_ids": ids,
            "finish_reason": "stop",
            "logprobs": {"content": [{"logprob": -i / 8} for i in ids]},
        }
        return 200, {"choices": [choice | {"weight_versions": [{"version": self.stamp, "start": 0, "end": 4}]}]}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}"))

    def answer(self, body):
        status, found = self.server.route(self.path, body)
        if status == 0:  # killed: the connection breaks
            return
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass
