"""Chromium without a window, by its DevTools protocol over two pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=1280,1000",
    "--remote-debugging-pipe",
)  # fmt: skip


class Page:
    """A page of the browser.

    Attributes:
      errors: what it wrote to its console as an error, and exceptions that nobody caught.
      requests: addresses of all that it asked for.
    """

    def __init__(self, reader, writer):
        self._reader, self._writer, self._session, self._number = reader, writer, None, 0
        self._buffer, self.errors, self.requests, self._loaded = b"", [], [], False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path):
        """Seconds until the file has been loaded."""
        start, self._loaded = time.perf_counter(), False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._read()
        return time.perf_counter() - start

    def __call__(self, expression):
        """The value of an expression of JavaScript, or of what it promises."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, expression, seconds=60):
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self(expression)):
            assert time.monotonic() < end, f"{expression} is still not true; {self.errors}"
            time.sleep(0.05)
        return value

    def picture(self, path, **options):
        found = self.call("Page.captureScreenshot", **options)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF")["data"]))

    def call(self, method, **params):
        """What the browser answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self):
        while b"\0" not in self._buffer:
            part = os.read(self._reader, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(params["args"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"])
        return message


@contextlib.contextmanager
def browsing(folder, *flags):
    """A ``Page`` of a browser whose profile is in ``folder``."""
    (theirs, writer), (reader, their_writer) = os.pipe(), os.pipe()
    command = [CHROMIUM, *_FLAGS, *flags, f"--user-data-dir={folder / 'profile'}"]
    browser = subprocess.Popen(
        # The browser reads from descriptor 3 and writes to 4.
        ["bash", "-c", f'exec 3<&{theirs} 4>&{their_writer} "$@"', "bash", *command],
        pass_fds=(theirs, their_writer),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    os.close(theirs), os.close(their_writer)
    try:
        page = Page(reader, writer)
        yield page
        page._session = None
        page.call("Browser.close")
        browser.wait(20)
    finally:
        browser.kill()
        os.close(reader), os.close(writer)
