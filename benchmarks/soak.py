"""Does the service stay itself? Mixed and malformed traffic for twenty minutes, every process watched.

    python benchmarks/soak.py [--minutes 20] [--clients 4] [--seed 5]

Starts `timbrel serve` as it starts by itself (Triton, two workers, HTTP and gRPC) on free ports over the bundle in this
checkout. Clients ask everything that it answers, in turns drawn at random, and one request in three is damaged: mutated
recordings (as in fuzz_uploads.py), JSON and forms that are none, values out of range, requests that are broken off.
Every minute is one line of reports/soak.json: answers by kind and status, and memory (of each process what is its own
alone, USS), open files and threads by process, and what lies in /dev/shm.

Exit status 1 if there was a 5xx other than 503 with Retry-After, an answer of a status that its request does not have,
a traceback in the log, a process that did not last; if memory grew by more than GROWTH from the second quarter to the
last; or if anything was left when the service had ended.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.mutated import mutated, whole_files  # noqa: E402
from support.serving import Serving, still_running  # noqa: E402

from timbrel.evaluation.report import write_report  # noqa: E402
from timbrel.v1 import timbrel_pb2 as pb  # noqa: E402
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc  # noqa: E402

GROWTH = 0.05
MALFORMED = 1 / 3
REFUSED = "503"
_REFUSING = ("400", "404", "405", "411", "413", "415", "421", "422")
_REFUSING_GRPC = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "NOT_FOUND")


class Visitor:
    """One client: its connections, its chance, and what it asks. ``ask`` gives the kind and the status."""

    def __init__(self, serving: Serving, seed: str) -> None:
        self._random = random.Random(seed)
        self._port = serving.ports.http
        self._http = serving.client()
        self._channel = serving.channel()
        self._grpc = pb_grpc.TimbrelStub(self._channel)
        self._files = whole_files()
        self._patches = [each["patch_id"] for each in self._http.get("/patches?limit=100").json()["patches"]]
        # Kind, how often, and which statuses are right.
        self._good: dict[str, tuple[int, Callable[[], str]]] = {
            "search": (6, lambda: self._upload("/search", self._random.choice(self._files))),
            "search like": (2, lambda: self._json("/search", {"like": self._patch()})),
            "synthesize": (5, lambda: self._json("/synthesize", self._note())),
            "locate": (2, lambda: self._upload("/locate", self._random.choice(self._files))),
            "instrument": (1, lambda: self._json("/instrument", {"x": 0.1, "y": -0.2, "seconds": 0.2})),
            "library": (3, self._library),
            "grpc search": (4, lambda: self._search_grpc(self._random.choice(self._files))),
            "grpc synthesize": (3, lambda: self._rpc("Synthesize", pb.SynthesizeRequest(**self._note()))),
            "grpc batch": (1, self._batch),
        }
        self._bad: dict[str, tuple[int, Callable[[], str]]] = {
            "mutated": (8, lambda: self._upload("/search", mutated(self._files, self._random))),
            "mutated locate": (2, lambda: self._upload("/locate", mutated(self._files, self._random))),
            "grpc mutated": (4, lambda: self._search_grpc(mutated(self._files, self._random))),
            "no JSON": (2, self._no_json),
            "out of range": (2, self._out_of_range),
            "no such thing": (1, self._nowhere),
            "broken off": (2, self._broken_off),
            "no HTTP": (1, self._no_http),
        }

    def ask(self) -> tuple[str, str, bool]:
        """The kind, the status, and whether it is one that such a request may get."""
        malformed = self._random.random() < MALFORMED
        kinds = self._bad if malformed else self._good
        (kind,) = self._random.choices(list(kinds), [weight for weight, _ in kinds.values()])
        status = kinds[kind][1]()
        right = ["200", "OK", REFUSED, "UNAVAILABLE"]
        right += [*_REFUSING, *_REFUSING_GRPC, "closed"] if malformed else []
        return kind, status, status in right

    def close(self) -> None:
        self._http.close()
        self._channel.close()

    def _patch(self) -> str:
        return self._random.choice(self._patches)

    def _note(self) -> dict[str, Any]:
        draw = self._random.uniform
        return {
            "x": draw(-0.6, 0.6),
            "y": draw(-0.6, 0.6),
            "pitch": self._random.randint(48, 72),
            "seconds": draw(0.2, 3),
        }

    def _status(self, answer: httpx.Response) -> str:
        if answer.status_code == 503 and "retry-after" not in answer.headers:
            return "503 without Retry-After"
        if answer.status_code >= 400 and not answer.json()["error"]["code"]:
            return f"{answer.status_code} without envelope"
        return str(answer.status_code)

    def _send(self, method: str, path: str, **content: Any) -> str:
        try:
            return self._status(self._http.request(method, path, **content))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            return f"lost: {type(error).__name__}"

    def _upload(self, path: str, data: bytes) -> str:
        return self._send("POST", path, files={"audio": ("clip", data)})

    def _json(self, path: str, content: Any) -> str:
        return self._send("POST", path, json=content)

    def _library(self) -> str:
        patch = self._patch()
        paths = (
            "/patches?limit=50",
            f"/patches/{patch}",
            f"/patches/{patch}/file",
            f"/patches/{patch}/preview",
        )
        return self._send("GET", self._random.choice((*paths, "/info", "/", "/metrics", "/readyz")))

    def _rpc(self, method: str, request: Any) -> str:
        try:
            getattr(self._grpc, method)(request, timeout=60)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def _search_grpc(self, data: bytes) -> str:
        return self._rpc("Search", pb.SearchRequest(recordings=pb.Recordings(audio=[data])))

    def _batch(self) -> str:
        requests = [pb.SearchRequest(like=self._patch()) for _ in range(4)]
        try:
            answers = list(self._grpc.SearchBatch(iter(requests), timeout=60))
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK" if len(answers) == 4 else f"{len(answers)} of 4"

    def _no_json(self) -> str:
        body = self._random.choice(
            (b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"x": 1e999}', b"[" * 5000, b'{"x": "\\ud800"}')
        )
        kind = self._random.choice(
            ("application/json", "text/plain", "multipart/form-data", "multipart/form-data; boundary=b")
        )
        path = self._random.choice(("/synthesize", "/instrument", "/search", "/locate"))
        return self._send("POST", path, content=body, headers={"content-type": kind})

    def _out_of_range(self) -> str:
        wrong: Any = self._random.choice((-1, 1000, 1e300, "middle", None, [], True, "9" * 400))
        field = self._random.choice(("x", "y", "pitch", "velocity", "seconds", "nothing"))
        if self._random.random() < 0.5:
            return self._json("/synthesize", {**self._note(), field: wrong})
        return self._rpc("Synthesize", pb.SynthesizeRequest(x=9.0, y=float("nan"), pitch=500, seconds=1e9))

    def _nowhere(self) -> str:
        paths = (
            "/patches/none",
            "/patches/../../etc/passwd",
            "/patches/%2e%2e%2fmanifest.json/file",
            "/" + "a" * 3000,
        )
        return self._send(self._random.choice(("GET", "POST", "DELETE")), self._random.choice(paths))

    def _broken_off(self) -> str:
        """An upload that ends in the middle, the connection with it."""
        data = self._random.choice(self._files)
        head = (
            "POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._port), timeout=10) as sock,
        ):
            sock.sendall(head.encode() + b"--b\r\n" + data[: self._random.randrange(len(data))])
        return "closed"

    def _no_http(self) -> str:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._port), timeout=10) as sock,
        ):
            sock.sendall(self._random.randbytes(self._random.randrange(1, 2000)) + b"\r\n\r\n")
            first = sock.recv(64).decode("latin-1")
            return first.split(" ")[1] if first.startswith("HTTP/1.1 ") else "closed"
        return "closed"


def roles(serving: Serving) -> dict[int, str]:
    """What each process of the family is, by its id."""
    found = {}
    for process in serving.family():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            signs = {
                "decoder_process": "decoders", "worker.service": "workers", "python_backend_stub": "Triton's stubs",
                "bentoml serve": "supervisor", "tritonserver": "Triton", "timbrel serve": "launcher",
            }  # fmt: skip
            found[process.pid] = next((role for sign, role in signs.items() if sign in line), "others")
    return found


def sample(serving: Serving) -> dict[str, Any]:
    """By role: processes, MiB of their own, open files, threads; and shared memory."""
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for pid, role in roles(serving).items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            totals[role]["processes"] += 1
            totals[role]["mib"] += round(process.memory_full_info().uss / 2**20)
            totals[role]["open_files"] += process.num_fds()
            totals[role]["threads"] += process.num_threads()
    return {
        "mib": sum(each["mib"] for each in totals.values()),
        "by_role": {role: dict(each) for role, each in sorted(totals.items())},
        "shared_memory_files": len(serving.shared_memory()),
    }


def soak(serving: Serving, minutes: float, clients: int, seed: int) -> dict[str, Any]:
    """Traffic for so long; the report's lines and sums."""
    lasting = {pid for pid, role in roles(serving).items() if role != "decoders"}
    outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
    wrong: collections.Counter[str] = collections.Counter()
    over = threading.Event()

    def visit(number: int) -> None:
        visitor = Visitor(serving, f"{seed}/{number}")
        try:
            while not over.is_set():
                kind, status, right = visitor.ask()
                outcomes[kind, status] += 1
                if not right:
                    wrong[f"{kind}: {status}"] += 1
        finally:
            visitor.close()

    every = min(60.0, minutes * 60 / 8)
    lines: list[dict[str, Any]] = []
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        visits = [pool.submit(visit, number) for number in range(clients)]
        before: collections.Counter[tuple[str, str]] = collections.Counter()
        while time.monotonic() - began < minutes * 60 and not any(each.done() for each in visits):
            over.wait(every)
            now = collections.Counter(dict(outcomes))
            line = {
                "minute": round((time.monotonic() - began) / 60, 2),
                **sample(serving),
                "answers": _nested(now - before),
            }
            lines.append(line)
            before = now
            print(
                f"{line['minute']:.1f} min, {now.total()} requests, {line['mib']} MiB, wrong: {dict(wrong)}",
                flush=True,
            )
        over.set()
        for each in visits:
            each.result()
    statuses = collections.Counter(status for _, status in outcomes.elements())
    quarter = len(lines) // 4
    early = float(np.mean([line["mib"] for line in lines[quarter : 2 * quarter]]))
    late = float(np.mean([line["mib"] for line in lines[3 * quarter :]]))
    return {
        "requests": outcomes.total(),
        "seconds": round(time.monotonic() - began),
        "server_errors": sum(
            n for status, n in statuses.items() if status.startswith("5") and status != REFUSED
        )
        + sum(statuses[name] for name in ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED")),
        "refused_busy": statuses[REFUSED] + statuses["UNAVAILABLE"],
        "wrong_answers": dict(wrong),
        "tracebacks_in_log": serving.log("service").count("Traceback (most recent call last)"),
        "processes_lost": len(lasting - roles(serving).keys()),
        "memory_mib": {
            "second_quarter": early,
            "last_quarter": late,
            "growth": late / early - 1,
            "bound": GROWTH,
        },
        "answers": _nested(outcomes),
        "minutes": lines,
    }


def _nested(outcomes: collections.Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for (kind, status), count in sorted(outcomes.items()):
        nested[kind][status] = count
    return dict(nested)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--engine", default="auto", help="TIMBREL_ENGINE of the service")
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundle")
    parser.add_argument("--output", type=Path, default=ROOT / "reports/soak.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serving = Serving.start(options.bundle, Path(folder), engine=options.engine)
        family: list[psutil.Process] = []
        try:
            serving.wait_ready()
            engine = next(line for line in serving.lines() if "models run" in line or "Triton: gRPC" in line)
            report = soak(serving, options.minutes, options.clients, options.seed)
            family = serving.family()
        finally:
            status = serving.stop()
        left = [*still_running(family), *serving.shared_memory()]
    report = {
        "command": f"python benchmarks/soak.py --minutes {options.minutes:g} --clients {options.clients} "
        f"--seed {options.seed}",
        "engine": engine.split(":")[0],
        "cores": os.cpu_count(),
        **report,
        "exit_status": status,
        "left_behind": left,
    }
    write_report(options.output, report)
    print(json.dumps({name: value for name, value in report.items() if name != "minutes"}, indent=2))
    bad = (
        "server_errors",
        "wrong_answers",
        "tracebacks_in_log",
        "processes_lost",
        "exit_status",
        "left_behind",
    )
    return int(any(report[name] for name in bad) or report["memory_mib"]["growth"] > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
