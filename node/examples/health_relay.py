#!/usr/bin/env python3
"""A relay: checks web servers for jobs of namespace `health_check` (health_check.toml).

    python3 health_relay.py --node http://127.0.0.1:7450 [--gid NAME] [--slots N]

It registers at a node, polls for tasks, gets each task's `url`, and reports `CheckPassed` or `CheckFailed`. Any node will do. Standard library only.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

POLL_MS = 5_000  # How long the node may let a poll wait.
PAUSE_S = 0.5  # Between tries while no node answers.
CHECK_S = 10  # Longest check.


class Refused(Exception):
    """The node understood and said no."""


class Relay:
    def __init__(self, node, gid, slots, lease_ms):
        self.node, self.gid, self.slots, self.lease_ms = node.rstrip("/"), gid, slots, lease_ms
        self.stopping = threading.Event()
        self.busy = set()  # Tokens of the tasks being checked, by which a task that is handed over again is known.
        self.lock = threading.Lock()

    def call(self, method, path, body=None, timeout=30):
        """One request to the node. Raises Refused, or OSError while no node answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.node + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code >= 500:
                raise OSError(text) from error
            raise Refused(f"{error.code}: {text}") from error
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"the answer broke off: {error}") from error

    def register(self):
        hello = {"gid": self.gid, "namespace": "health_check", "slots": self.slots, "lease_ms": self.lease_ms}
        self.call("POST", "/v1/relays", hello)
        print(f"{self.gid}: registered at {self.node}", file=sys.stderr, flush=True)

    def run(self):
        registered = False
        while not self.stopping.is_set():
            try:
                if not registered:
                    self.register()
                    registered = True
                work = self.call("GET", f"/v1/relays/{self.gid}/work?wait_ms={POLL_MS}")
                for task in work["tasks"]:
                    self.start(task)
            except (OSError, Refused) as error:
                # The node restarted, or the answer was lost: registering again brings back what we hold.
                registered = False
                print(f"{self.gid}: {error}; trying again", file=sys.stderr, flush=True)
                self.stopping.wait(PAUSE_S)
        try:
            self.call("DELETE", f"/v1/relays/{self.gid}", timeout=3)
        except (OSError, Refused):
            pass

    def start(self, task):
        with self.lock:
            if task["task"] in self.busy:
                return
            self.busy.add(task["task"])
        threading.Thread(target=self.check, args=(task,), daemon=True).start()

    def check(self, task):
        kind, spec = look(task["spec"]["url"], task["spec"]["expect_status"])
        report = {"task": task["task"], "kind": kind, "spec": spec}
        while not self.stopping.is_set():
            try:
                self.call("POST", f"/v1/relays/{self.gid}/report", report)
                break
            except Refused as error:
                # Reported already, or given to somebody else meanwhile: not ours any more.
                print(f"{self.gid}: {task['job']}[{task['index']}]: {error}", file=sys.stderr, flush=True)
                break
            except OSError:
                self.stopping.wait(PAUSE_S)
        with self.lock:
            self.busy.discard(task["task"])


def look(url, expect_status):
    """Gets `url`: the kind of event to report, and its fields."""
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=CHECK_S) as answer:
            status, size = answer.status, len(answer.read())
    except urllib.error.HTTPError as error:
        status, size = error.code, 0
    except (OSError, ValueError, http.client.HTTPException) as error:
        return "CheckFailed", {"reason": str(error)[:200]}
    if status != expect_status:
        return "CheckFailed", {"reason": f"expected status {expect_status}, got {status}", "status": status}
    return "CheckPassed", {"latency_ms": int((time.monotonic() - begun) * 1000), "body_bytes": size}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", default="http://127.0.0.1:7450", help="any node's API")
    parser.add_argument("--gid", default=f"health-{socket.gethostname()}-{os.getpid()}", help="this relay's name")
    parser.add_argument("--slots", type=int, default=16, help="checks at once")
    parser.add_argument("--lease-ms", type=int, default=10_000, help="when this relay is silent for so long, others redo its checks")
    args = parser.parse_args()
    relay = Relay(args.node, args.gid, args.slots, args.lease_ms)
    signal.signal(signal.SIGTERM, lambda *_: relay.stopping.set())
    signal.signal(signal.SIGINT, lambda *_: relay.stopping.set())
    relay.run()


if __name__ == "__main__":
    main()
