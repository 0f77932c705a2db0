"""Requests to one or several vLLM servers: spread over them, asked again when a server is lost, within a time limit."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import aiohttp

from gopd_lightning.errors import InputError, TrainingError

GENERATE = "/inference/v1/generate"  # vLLM's own: token ids in, token ids out, any of its sampling parameters
_TRIES = 5  # of one request, by servers that were ready: then it is the request that they cannot bear
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0

_log = logging.getLogger(__name__)

Read = Callable[["Server", Any], Any]
Ready = Callable[["Server"], Awaitable[None]]


class ServerLostError(Exception):
    """A server that does not answer, that failed, or that is not the one it was: to be looked at before it is used."""


class Server:
    """One server.

    Args:
        url: Such as http://host:8000.

    Attributes:
        held: What it was last seen to hold, as the engine puts it; None before and whenever it is lost.
        room: Its longest prompt and response together, once known.
        lost_since: Time (monotonic) from which it has been lost; None while it is not.
        reason: Why it is lost.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"the server's url {url!r} is none: write it like http://host:8000")
        self.url = url.rstrip("/")
        self.held: Any = None
        self.room = 0
        self.lost_since: float | None = None
        self.reason = ""
        self.session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> Any:
        """The JSON at a path; see `post`."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer to a body, None where there is none.

        Raises:
            ServerLostError: No answer, or one that says that the server failed.
            InputError: The server refuses the request (4xx); its own reason.
        """
        return await self._ask("POST", path, body)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        assert self.session is not None, "servers are asked from within `Servers.run`"
        try:
            async with self.session.request(method, self.url + path, json=body) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServerLostError(f"{type(error).__name__} {error}".strip()) from error
        if response.status >= 500:
            raise ServerLostError(f"{path} answered {response.status}: {_short(text)}")
        if response.status >= 400:
            raise InputError(f"the vLLM server {self.url} refuses {path} ({response.status}): {_short(text)}")
        return json.loads(text) if text else None

    def lose(self, reason: str) -> None:
        """Note that it is lost, and since when."""
        if self.lost_since is None:
            self.lost_since = time.monotonic()
            _log.warning("lost the vLLM server %s: %s", self.url, reason)
        self.held, self.reason = None, reason

    def find(self) -> None:
        """Note that it is ready."""
        if self.lost_since is not None:
            _log.warning("the vLLM server %s is ready", self.url)
        self.lost_since = None


class Servers:
    """Several servers that are as good as each other.

    Args:
        urls: Where they are.
        ready: Makes one ready for requests; raises ServerLostError when it cannot be had now. Called before
            a server's first request, and again whenever it was lost.
        wait_s: Seconds that all servers together may be lost before the run stops.
        request_s: Seconds after which a request without an answer counts as lost.
        concurrency: Requests that one server is given at a time.

    Raises:
        InputError: No URL, or something else in its place.
    """

    def __init__(
        self, urls: Sequence[str], ready: Ready, wait_s: float, request_s: float, concurrency: int = 256
    ) -> None:
        if not urls:
            raise InputError("no vLLM server is named: write at least one url like http://host:8000")
        self.all = [Server(url) for url in urls]
        self._ready = ready
        self.wait_s = wait_s
        self.request_s = request_s
        self.concurrency = concurrency

    def make_ready(self, everyone: bool) -> None:
        """Wait until servers are ready.

        Args:
            everyone: All of them; otherwise those that can be had at once, and at least one.

        Raises:
            TrainingError: They are not within the time limit.
        """
        self._run(self._make_ready(everyone))

    def answers(
        self, path: str, bodies: Sequence[Mapping[str, Any]], read: Read, done: Callable[[int, Any], None]
    ) -> None:
        """Ask each body of some server and hand over what was read from its answer.

        Args:
            path: Where all of them go.
            bodies: The requests.
            read: Makes something of a server and its answer; ServerLostError from it asks again elsewhere.
            done: Told number and what was read, each as it comes.

        Raises:
            TrainingError: All servers are lost for too long, or one request fails again and again.
            InputError: A server refuses a request.
        """
        if bodies:
            self._run(self._answer(_Job(path, bodies, read, done)))

    def _run(self, work: Awaitable[None]) -> None:
        """Run to the end with a session of connections; of several errors the first counts."""
        try:
            asyncio.run(self._with_session(work))
        except BaseExceptionGroup as group:
            raise _first(group) from None

    async def _with_session(self, work: Awaitable[None]) -> None:
        limits = aiohttp.ClientTimeout(total=self.request_s, sock_connect=10)
        async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as session:
            for server in self.all:
                server.session = session
            await work

    async def _make_ready(self, everyone: bool) -> None:
        deadline, pause = time.monotonic() + self.wait_s, _FIRST_PAUSE_S
        while True:
            found = await asyncio.gather(*(self._try(server) for server in self.all))
            if all(found) or (any(found) and not everyone):
                return
            if time.monotonic() > deadline:
                self._give_up()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _answer(self, job: "_Job") -> None:
        """One task a server until all is answered."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._work(server, job)) for server in self.all]
            await job.finished.wait()
            for task in tasks:
                task.cancel()

    async def _work(self, server: Server, job: "_Job") -> None:
        """Give a server requests, and again when it is back after it was lost."""
        while True:
            await self._until_ready(server)
            server.lose(await self._until_lost(server, job))

    async def _until_lost(self, server: Server, job: "_Job") -> str:
        """Give a ready server requests until one of them says why it is lost."""
        asking = [asyncio.create_task(job.ask(server)) for _ in range(min(self.concurrency, len(job.bodies)))]
        try:
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        finally:  # the others' requests go back too
            for task in asking:
                task.cancel()
            ends = await asyncio.gather(*asking, return_exceptions=True)
        for end in ends:
            if not isinstance(end, ServerLostError | asyncio.CancelledError):
                raise end
        return next(str(end) for end in ends if isinstance(end, ServerLostError))

    async def _until_ready(self, server: Server) -> None:
        pause = _FIRST_PAUSE_S
        while not await self._try(server):
            now = time.monotonic()
            if all(each.lost_since is not None and now - each.lost_since > self.wait_s for each in self.all):
                self._give_up()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _try(self, server: Server) -> bool:
        """Whether a server is ready now."""
        try:
            await self._ready(server)
        except ServerLostError as lost:
            server.lose(str(lost))
            return False
        server.find()
        return True

    def _give_up(self) -> None:
        lost = "; ".join(f"{server.url}: {server.reason}" for server in self.all if server.lost_since is not None)
        raise TrainingError(f"no answer within {self.wait_s:.0f} s from the vLLM server: {lost}. Start it again")


class _Job:
    """Requests of which some are still unanswered."""

    def __init__(
        self, path: str, bodies: Sequence[Mapping[str, Any]], read: Read, done: Callable[[int, Any], None]
    ) -> None:
        self.path, self.bodies, self.read, self.done = path, bodies, read, done
        self.finished = asyncio.Event()
        self._waiting: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
        self._unanswered = len(bodies)
        self._failures = [0] * len(bodies)
        for number in range(len(bodies)):
            self._waiting.put_nowait(number)

    async def ask(self, server: Server) -> NoReturn:
        """Ask one request after the other of a server; one that is not answered goes back to all servers."""
        while True:
            number = await self._waiting.get()
            try:
                found = self.read(server, await server.post(self.path, self.bodies[number]))
            except BaseException as error:
                self._waiting.put_nowait(number)
                if isinstance(error, ServerLostError):
                    self._count(number, server, error)
                raise
            self.done(number, found)
            self._unanswered -= 1
            if self._unanswered == 0:
                self.finished.set()

    def _count(self, number: int, server: Server, lost: ServerLostError) -> None:
        self._failures[number] += 1
        if self._failures[number] == _TRIES:
            raise TrainingError(f"a request failed {_TRIES} times, lastly on the vLLM server {server.url}: {lost}")


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first single error of a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _short(text: str) -> str:
    """What a server says, on one line."""
    with suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["error"]["message"]
    return " ".join(text.split())[:300]
