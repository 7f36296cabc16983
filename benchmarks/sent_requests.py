"""What this process asks of the API server and of S3, seen where both clients send it: in urllib3."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from urllib3.connectionpool import HTTPConnectionPool


@dataclass
class Sent:
    """A request: Unix time, CPU seconds of the process so far, server, what it asks, and bytes of the answer read."""

    time: float
    cpu: float
    server: str  # "API" or "S3"
    what: str  # as LIST pods, or PUT runs
    path: str  # with its query
    answered: int = 0


class SentRequests:
    """Requests, in the order in which they were sent."""

    def __init__(self, namespace: str) -> None:
        """``namespace``: of the runs, by whose name requests to the API server are known."""
        self.sent: list[Sent] = []
        self._namespace = namespace
        self._lock = threading.Lock()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is sent meanwhile."""
        original = HTTPConnectionPool.urlopen
        notes = self

        def urlopen(pool: Any, method: str, url: str, *arguments: Any, **options: Any) -> Any:
            noted = notes.note(method, url)
            response = original(pool, method, url, *arguments, **options)
            read = response.read

            def counted(*arguments: Any, **options: Any) -> Any:
                data = read(*arguments, **options)
                noted.answered += len(data)
                return data

            response.read = counted  # type: ignore[method-assign]
            return response

        setattr(HTTPConnectionPool, "urlopen", urlopen)  # noqa: B010 - a type checker minds
        try:
            yield
        finally:
            setattr(HTTPConnectionPool, "urlopen", original)  # noqa: B010

    def note(self, method: str, url: str) -> Sent:
        """One more."""
        server, what = self._named(method, url)
        noted = Sent(time.time(), time.process_time(), server, what, url)
        with self._lock:
            self.sent.append(noted)
        return noted

    def as_json(self) -> list[dict[str, Any]]:
        """All of them."""
        with self._lock:
            return [asdict(one) for one in self.sent]

    def _named(self, method: str, url: str) -> tuple[str, str]:
        address = urlsplit(url)
        query, parts = parse_qs(address.query), address.path.strip("/").split("/")
        if parts[0] in {"api", "apis", "version", "openapi"}:
            if f"/namespaces/{self._namespace}/" not in address.path:
                return "API", "discovery"
            kind = parts[parts.index("namespaces") + 2]
            whole = parts[-1] == kind and method == "GET"
            return "API", f"{('WATCH' if 'watch' in query else 'LIST') if whole else method} {kind}"
        if "list-type" in query:
            return "S3", f"LIST {query.get('prefix', [''])[0]}"
        return "S3", method


def totals(sent: Iterable[dict[str, Any]], server: str) -> Counter[str]:
    """How many of each, without what S3's lists are of."""
    return Counter(
        one["what"].split(" ")[0] if server == "S3" else one["what"] for one in sent if one["server"] == server
    )


def of_others(sent: Iterable[dict[str, Any]], run: str, keys: Iterable[str]) -> list[str]:
    """Lists and watches that would bring objects of other runs too: they name neither the run nor one of its keys."""
    labels = {f"isc-jobs.io/run={run}", f"isc-jobs.io/controller={run}"}
    places = (f"runs/{run}/", *keys)
    found = []
    for one in sent:
        query = parse_qs(urlsplit(one["path"]).query)
        if one["server"] == "S3" and "prefix" in query:
            own = any(place in query["prefix"][0] for place in places)
        elif one["what"].startswith(("LIST", "WATCH")):
            selected = labels & set(query.get("labelSelector", [""])[0].split(","))
            own = bool(selected) or query.get("fieldSelector", [""])[0].startswith("involvedObject.uid=")
        else:
            own = True
        found += [] if own else [one["path"]]
    return found


def recurs(one: dict[str, Any]) -> bool:
    """Whether a request is made again and again while nothing happens, to see whether something has."""
    looks = one["what"].startswith(("LIST pods", "WATCH", "GET", "HEAD", "discovery"))
    return looks or any(name in one["path"] for name in ("progress", "lease.json"))
