"""JSON to and from a server that the user named: every way in which that can fail is a sentence, and the key is in none of them.
It knows no model and follows no redirect; what is asked stands with who asks."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from penchant.errors import Refusal
from penchant.words import brief

LARGEST = 64 << 20
"""Bytes of an answer that are read at most."""
SECRET = 8
"""Characters from which a key is one; "EMPTY" and the like stand for none and are looked for nowhere."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Stay(HTTPRedirectHandler):
    """Follows nothing: what is sent to a server is for that server alone."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


_OPENER = build_opener(ProxyHandler({}), _Stay())


class Failed(Refusal):
    """The server answered with an error."""

    def __init__(self, said: str, status: int, wait: float | None = None) -> None:
        super().__init__(said)
        self.status = status
        self.wait = wait
        """Seconds after which it may be asked again, where it says so."""


class Silent(Refusal):
    """The server did not answer in time, or broke off."""


class Absent(Refusal):
    """Nobody answers at the address."""


class Address:
    """Where a server listens."""

    def __init__(self, url: str, timeout: float, keys: Sequence[str], mend: str) -> None:
        """timeout: seconds to wait for an answer. keys: the environment variables that may hold the key, the first that is
        set counts; over plain http only the first is sent to another machine, since it alone was set for this server. mend:
        what to do where nobody answers. Raises Refusal on an address that cannot be one."""
        self.url, self.timeout, self._mend = checked(url, keys[0]), timeout, mend
        parts = urlsplit(url)
        safe = parts.scheme == "https" or parts.hostname in LOOPBACK
        self._keys = tuple(keys) if safe else tuple(keys[:1])

    def get(self, path: str) -> Any:
        """What the server answers to GET, read as JSON."""
        return self._asked(path, None)

    def post(self, path: str, value: Any) -> Any:
        """What the server answers to POST, read as JSON; None where it answers nothing, its text where that is no JSON."""
        return self._asked(path, value)

    def _key(self) -> str:
        """The key, read when it is needed and kept nowhere. A header that cannot hold it would show it in its error."""
        name = next((name for name in self._keys if os.environ.get(name)), "")
        key = os.environ.get(name, "") if name else ""
        if not re.fullmatch(r"[!-~]*", key):
            raise Refusal(f"the key in {name} holds a space or another character that no key has; set it anew.")
        return key

    def _asked(self, path: str, value: Any) -> Any:
        key = self._key()
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        data = None if value is None else json.dumps(value, allow_nan=False).encode()
        where = f"{'GET' if data is None else 'POST'} {self.url}{path}"
        try:
            with _OPENER.open(Request(self.url + path, data, headers), timeout=self.timeout) as answer:
                text = self._read(answer, where)
        except HTTPError as error:
            said = _message(without(_told(error), key), key)
            if error.code in (401, 403):
                names = " or ".join(self._keys)
                raise Failed(f"{where}: the server wants a key ({error.code}); set {names} to it.", error.code) from None
            wait = waited(error.headers.get("Retry-After"))
            raise Failed(f"{where}: the server refused with {error.code} ({said}).", error.code, wait) from None
        except TimeoutError:
            raise Silent(self._silent(where)) from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise Silent(self._silent(where)) from None
            raise Absent(f"no server answers at {self.url} ({error.reason}). {self._mend}") from None
        except (HTTPException, OSError) as error:
            raise Silent(f"{where}: the server broke off ({type(error).__name__}); see its log.") from None
        try:
            return bare(json.loads(text), key) if text.strip() else None
        except (ValueError, RecursionError):
            return without(text, key)

    def _read(self, answer: Any, where: str) -> str:
        """The whole answer, in the time that is allowed for it: a timeout of the system counts anew with every byte."""
        until, parts, size = time.monotonic() + self.timeout, [], 0
        while part := answer.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                raise Refusal(f"{where}: the server answered more than {LARGEST:,} bytes.")
            if time.monotonic() > until:
                raise TimeoutError
        return b"".join(parts).decode("utf-8", "replace")

    def _silent(self, where: str) -> str:
        return f"{where}: no answer within {self.timeout:g} s; see the server's log."


def checked(url: str, key: str) -> str:
    """The address without a slash at its end. Refuses what is no address of a web server, and one that carries a password."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine, parts = False, SplitResult("", "", "", "", "")
    if "@" in url:
        raise Refusal(f"server: an address is written down with the run, so it holds no password; set {key} instead.")
    if parts.query or parts.fragment:  # which may hold a key, so it is not repeated
        raise Refusal(f"server: an address ends before its question mark or #; a key is set as {key}.")
    if not fine or not re.fullmatch(r"[!-~]+", url):
        raise Refusal(f"server={brief(url, 200)} is no address of a server; give one such as http://127.0.0.1:8000.")
    return url.rstrip("/")


def waited(said: str | None) -> float | None:
    """Seconds that a Retry-After asks for, written as a number or as a date (RFC 9110, 10.2.3); None where it says nothing."""
    if said is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d*)?\s*", said):
        return float(said)
    try:
        return max(parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None


def without(text: str, key: str) -> str:
    """The text with … where the key stood."""
    return text.replace(key, "…") if len(key) >= SECRET else text


def bare(value: Any, key: str) -> Any:
    """A value of JSON without the key, however it was escaped: a server may repeat what it was sent."""
    if isinstance(value, str):
        return without(value, key)
    if isinstance(value, dict):
        return {without(name, key): bare(one, key) for name, one in value.items()}
    return [bare(one, key) for one in value] if isinstance(value, list) else value


def _told(error: HTTPError) -> str:
    """What stands below an error's status, as far as it comes."""
    with error:
        try:
            return error.read(1 << 16).decode("utf-8", "replace")
        except (HTTPException, OSError):
            return "it broke off before it said why"


def _message(text: str, key: str) -> str:
    """What a server said of its error, in vLLM's, OpenAI's or FastAPI's form, in short."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    for name in ("error", "message", "detail"):
        value = value.get(name, value) if isinstance(value, dict) else value
    said = value if isinstance(value, str) else json.dumps(value)
    return brief(without(said, key), 300)
