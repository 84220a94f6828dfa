"""An OpenAI-compatible endpoint on loopback that answers as a test tells it to, and notes what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

Answer = str | tuple[int, Any, dict[str, str]] | dict[str, Any]
"""The reply's text; or status, body and headers; or the whole answer."""


class Stub:
    """What the endpoint was asked, and how it answers: `says(question, body)`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.says: Callable[[str, dict[str, Any]], Answer] = lambda question, body: "Rating: [[5]]"
        self.url = ""
        self.lock = Lock()
        self.now = self.most = 0
        """Requests under way, and the most at once."""


def whole(text: str, top: dict[str, float] | None = None, finish: str = "stop") -> dict[str, Any]:
    """An answer as OpenAI writes it; `top`: log-probs at its only token."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if top is not None:
        listed = [{"token": token, "logprob": logp} for token, logp in top.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": top[text], "top_logprobs": listed}]}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 7}}


@contextmanager
def stub() -> Iterator[Stub]:
    told = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with told.lock:
                told.bodies.append(body)
                told.keys.append(self.headers.get("Authorization"))
                told.now += 1
                told.most = max(told.most, told.now)
            try:
                if self.path != "/v1/chat/completions":
                    return self.say(404, {"error": "Not Found"}, {})
                said = told.says(body["messages"][-1]["content"], body)
                if isinstance(said, tuple):
                    return self.say(*said)
                self.say(200, whole(said) if isinstance(said, str) else said, {})
            finally:
                with told.lock:
                    told.now -= 1

        def say(self, status: int, value: Any, headers: dict[str, str]) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, one in headers.items():
                self.send_header(name, one)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(OSError):  # who asked may have left
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
