"""Headless Chromium driven over its own pipe (the DevTools protocol, without a library): open a page, press keys, ask the page."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "=": 187, "s": 83, "u": 85}


class Tab:
    """One page."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read, self.number, self.rest, self.session = write, read, 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **asked: Any) -> Any:
        self.number += 1
        said = {"id": self.number, "method": method, "params": asked}
        os.write(self.write, json.dumps({**said, **({"sessionId": self.session} if self.session else {})}).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert select.select([self.read], [], [], 60)[0], "the browser says nothing"
            self.rest += os.read(self.read, 1 << 16)
        one, _, self.rest = self.rest.partition(b"\0")
        return json.loads(one)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str) -> None:
        end = time.monotonic() + 30
        while not self.ask(expression):
            assert time.monotonic() < end, f"{expression} did not come true: {self.ask('document.body.innerText')}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key], **text)


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A fresh browser; the test is skipped where none is installed."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    theirs, ours = os.pipe()
    mine, their = os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--remote-debugging-pipe"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}"]
    words = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{their}', "bash", found, *flags, "--window-size=1200,760"]
    process = subprocess.Popen(words, pass_fds=(theirs, their), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.close(theirs)
    os.close(their)
    try:
        yield Tab(ours, mine)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(mine)
