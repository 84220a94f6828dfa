"""A page on this machine that shows a person two answers and takes a key press. It is reached with a token over loopback alone,
and loads nothing from anywhere; votes are kept in votes.py."""

from __future__ import annotations

import hmac
import json
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from penchant.errors import Refusal
from penchant.feedback.records import as_text
from penchant.judging.votes import Votes

HERE = "127.0.0.1"
LARGEST = 1024
"""Bytes of a request at most: an act and the name of a question."""
PATIENCE = 10.0
"""Seconds that a connection may say nothing."""


class Page(ThreadingHTTPServer):
    """The page, served until somebody ends it."""

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, votes: Votes, port: int = 0) -> None:
        """port: 0 takes a free one. Raises Refusal where it is taken."""
        try:
            super().__init__((HERE, port), _Handler)
        except OSError as error:
            raise Refusal(
                f"port {port} of {HERE} cannot be used ({error.strerror}); give another --port, or none."
            ) from None
        self.votes, self.token, self.lock = votes, secrets.token_urlsafe(24), Lock()
        self.host = f"{HERE}:{self.server_port}"

    @property
    def url(self) -> str:
        """The address with its token: whoever has it can vote."""
        return f"http://{self.host}/{self.token}/"

    def state(self) -> dict[str, Any]:
        """What the page shows now. Who answered, and what the data says of it, is not in it."""
        votes, question = self.votes, self.votes.next()
        said = {"done": votes.done, "total": len(votes.questions), "skipped": votes.counts()["skipped"]}
        if question is None:
            return {**said, "question": None}
        left, right = votes.sides(question)
        return {
            **said,
            "question": question.identity,
            "prompt": as_text(question.prompt),
            "left": left,
            "right": right,
        }

    def act(self, asked: Any) -> str | None:
        """Does what the page asks; the sentence where it cannot. A vote names its question, so that none counts for another."""
        act = asked.get("act") if isinstance(asked, dict) else None
        if act == "show":
            return None
        if act == "undo":
            return None if self.votes.undo() else "There is nothing to take back."
        question = self.votes.next()
        if question is None or asked.get("question") != question.identity:
            return "This question was answered already, on another page; load this page again."
        if act == "skip":
            self.votes.skip(question)
        elif act in ("left", "right", "tie"):
            self.votes.add(question, act)
        else:
            return "There is no such act."
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: Page  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = PATIENCE
    server_version, sys_version = "penchant", ""

    def do_GET(self) -> None:
        if not self._allowed() or self._path() != "":
            return self._refuse()
        nonce = secrets.token_urlsafe(16)
        text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8").replace("NONCE", nonce)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
        self._send(200, "text/html; charset=utf-8", text.encode(), policy)

    def do_POST(self) -> None:
        if not self._allowed() or self._path() != "act" or self.headers.get("Origin") != f"http://{self.server.host}":
            return self._refuse()
        size = self.headers.get("Content-Length", "")
        if self.headers.get("Content-Type") != "application/json" or not size.isdecimal() or int(size) > LARGEST:
            return self._refuse(413 if size.isdecimal() and int(size) > LARGEST else 400)
        try:
            asked = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError):
            return self._refuse(400)
        with self.server.lock:
            try:
                problem = self.server.act(asked)
            except (Refusal, OSError) as error:
                problem = str(error)
            said = self.server.state() if problem is None else {"problem": problem}
        self._send(200 if problem is None else 409, "application/json", json.dumps(said).encode())

    def _path(self) -> str | None:
        """What follows the token; None where the token is another."""
        _, token, *rest = [*self.path.split("/", 2), "", ""][:3]
        known = hmac.compare_digest(token.encode("latin-1", "replace"), self.server.token.encode())
        return rest[0] if known and self.path.count("/") == 2 else None

    def _allowed(self) -> bool:
        """Only under the name it was opened with: a page of another host that resolves to this machine has another (DNS
        rebinding), and one that sends an Origin of its own is another page."""
        origin = self.headers.get("Origin")
        return self.headers.get_all("Host") == [self.server.host] and origin in (None, f"http://{self.server.host}")

    def _refuse(self, status: int = 403) -> None:
        self.close_connection = True
        self._send(status, "application/json", b'{"problem": "This page is not for you."}')

    def _send(
        self, status: int, kind: str, data: bytes, policy: str = "default-src 'none'; frame-ancestors 'none'"
    ) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(data))),
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the path holds the token."""
