"""The sandboxes that attacks are launched in, and a host with something to lose."""

import os
import socket
import threading

import attacks
import pytest

from gopd_lightning.verifiers import ProgramVerifier
from gopd_lightning.verifiers.sandbox import pool as sandbox


class Host:
    """Files and a listener that no program may reach.

    Attributes:
        file: A file that must stay as it is; programs know its path.
        port: Where the listener listens, on TCP and UDP.
        visits: Connections and datagrams so far.
    """

    def __init__(self, folder):
        self.folder, self.file = folder, folder / "canary"
        self.file.write_text("alive")
        self.visits = []
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        for receive in (self._tcp.accept, lambda: self._udp.recv(99)):
            threading.Thread(target=self._listen, args=(receive,), daemon=True).start()

    def _listen(self, receive):
        try:
            while True:
                self.visits.append(receive())
        except OSError:
            pass

    def unharmed(self):
        return self.file.read_text() == "alive" and list(self.folder.iterdir()) == [self.file] and not self.visits


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    return Host(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module", params=["bubblewrap", "weak"])
def verifier(request):
    """A verifier with one worker; `verifier.known` processes belong to it while it is idle."""
    if request.param == "bubblewrap" and (refusal := sandbox.bubblewrap_refusal()):
        pytest.skip(f"no bubblewrap here: {refusal}")
    before = len(attacks.processes_below(os.getpid()))
    weak = request.param == "weak"
    made = ProgramVerifier(0.25, wall_seconds=2.5, memory_mb=256, workers=1, allow_weak_sandbox=weak)
    with pytest.MonkeyPatch.context() as patch:
        if weak:
            attacks.weak_only(patch)
        made.start()
    made.sandbox = request.param
    made.known = before + (2 if weak else 3)  # bwrap, the runner, and a keeper that waits for a job
    yield made
    made.close()
