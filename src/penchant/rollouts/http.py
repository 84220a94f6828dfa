"""JSON to and from a server that the user named: every way in which that can fail is a sentence, and the key is in none of them.
It knows no model and follows no redirect; what is asked stands in server.py."""

from __future__ import annotations

import json
import os
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from penchant.errors import Refusal
from penchant.words import brief

KEY = "VLLM_API_KEY"
"""The variable that holds the server's key, as the server itself reads it."""


class _Stay(HTTPRedirectHandler):
    """Follows nothing: what is sent to a server is for that server alone."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


_OPENER = build_opener(ProxyHandler({}), _Stay())


class Failed(Refusal):
    """The server answered with an error."""

    def __init__(self, said: str, status: int) -> None:
        super().__init__(said)
        self.status = status


class Address:
    """Where a server listens."""

    def __init__(self, url: str, timeout: float) -> None:
        """timeout: seconds to wait for an answer. Raises Refusal on an address that cannot be one."""
        self.url, self.timeout = checked(url), timeout

    def get(self, path: str) -> Any:
        """What the server answers to GET, read as JSON."""
        return self._asked(path, None)

    def post(self, path: str, value: Any) -> Any:
        """What the server answers to POST, read as JSON; None where it answers nothing, its text where that is no JSON."""
        return self._asked(path, value)

    def _asked(self, path: str, value: Any) -> Any:
        key = os.environ.get(KEY, "")
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        data = None if value is None else json.dumps(value, allow_nan=False).encode()
        where = f"{'GET' if data is None else 'POST'} {self.url}{path}"
        try:
            with _OPENER.open(Request(self.url + path, data, headers), timeout=self.timeout) as answer:
                text = answer.read().decode("utf-8", "replace")
        except HTTPError as error:
            said = _message(error.read().decode("utf-8", "replace"), key)
            if error.code in (401, 403):
                raise Failed(f"{where}: the server wants a key ({error.code}); set {KEY} to it.", error.code) from None
            raise Failed(f"{where}: the server refused with {error.code} ({said}).", error.code) from None
        except TimeoutError:
            raise Refusal(self._silent(where)) from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise Refusal(self._silent(where)) from None
            raise Refusal(
                f"no server answers at {self.url} ({error.reason}). Start one (docs/vllm.md has the commands), or sample with "
                "--engine own."
            ) from None
        except (HTTPException, OSError) as error:
            raise Refusal(f"{where}: the server broke off ({type(error).__name__}); see its log.") from None
        try:
            return json.loads(text) if text.strip() else None
        except ValueError:
            return text

    def _silent(self, where: str) -> str:
        return f"{where}: no answer within {self.timeout:g} s; see the server's log."


def checked(url: str) -> str:
    """The address without its end. Refuses what is no address of a web server, and one that carries a password."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine, parts = False, urlsplit("")
    if parts.username or parts.password:
        raise Refusal(f"server: an address is written down with the run, so it holds no password; set {KEY} instead.")
    if not fine or parts.query or parts.fragment:
        raise Refusal(f"server={url!r} is no address of a server; give one such as http://127.0.0.1:8000.")
    return url.rstrip("/").removesuffix("/v1")


def _message(text: str, key: str) -> str:
    """What a server said of its error, in vLLM's, OpenAI's or FastAPI's form, in short."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    for name in ("error", "message", "detail"):
        value = value.get(name, value) if isinstance(value, dict) else value
    said = value if isinstance(value, str) else json.dumps(value)
    return brief(said.replace(key, "…") if key else said, 300)
