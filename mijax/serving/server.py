"""The application on a socket, until a signal ends it."""

import contextlib
import os
import signal
import socket
import threading

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mijax.errors import UserError

CONNECTIONS = 64  # at the same time
_IDLE = 20.0  # seconds that a connection may have no request at work, twice at most
_KEPT = 5  # seconds that a connection is kept after an answer
_END = 600  # seconds for the prediction at work at the end


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      UserError: no such address here, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except OSError as error:
        reason = os.strerror(error.errno) if (error.errno or 0) > 0 else error.strerror or error
        line = f"cannot listen on {host}, port {port}: {reason}; see --host and --port"
        raise UserError(line) from error


class Server(uvicorn.Server):
    """One that comes to an end in good order, and then returns, on SIGINT and SIGTERM."""

    def __init__(self, app):
        """Serves an application of ``make_app``, by HTTP/1.1 without web sockets."""
        self._end = app.state.end
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                loop="asyncio",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS + 1,  # of so many the last is refused
                timeout_keep_alive=_KEPT,
                timeout_graceful_shutdown=_END,
            )
        )

    def handle_exit(self, sig, frame):
        """Lets the prediction at work come to its end, and none after it."""
        self._end()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self):
        """As uvicorn's, which raises the signal anew at its end; here all is done by then."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Protocol(H11Protocol):
    """One that closes connections on which nothing goes on.

    These are the ones of slow headers, of bodies after their answer, and of answers not fetched.
    """

    _seen = None  # the answered request at the last look, and bytes that wait to be sent

    def connection_made(self, transport):
        super().connection_made(transport)
        self.loop.call_later(_IDLE, self._look)

    def _look(self):
        if self not in self.connections:
            return
        idle = self.cycle is None or self.cycle.response_complete
        now = (self.cycle, self.transport.get_write_buffer_size()) if idle else None
        if idle and now == self._seen:
            self.transport.abort()
            return
        self._seen = now
        self.loop.call_later(_IDLE, self._look)
