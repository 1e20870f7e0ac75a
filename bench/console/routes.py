#!/usr/bin/env python3
"""What the console's routes cost on a simulated fleet of 16,384 nodes: time and bytes of each, with the parts that a page
asks for again and again, and how long a small request waits while a large answer is made. One JSON object.
Usage: bench/console/routes.py [--preset hyperscale-131k] [--warm-s 60] [--requests 40]"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUTES = ["/health", "/api/v1/fleet", "/api/v1/fleet/map", "/api/v1/fleet/use", "/api/v1/nodes", "/api/v1/slices",
          "/api/v1/jobs", "/api/v1/slices?limit=50", "/api/v1/jobs?limit=50", "/api/v1/usage", "/api/v1/accounts",
          "/metrics"]


def percentile(values, part):
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 2)


class Client:
    def __init__(self, url, key):
        self.key = key
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)

    def get(self, path, **headers):
        begin = time.perf_counter()
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {self.key}", **headers})
        response = self.connection.getresponse()
        body = response.read()
        return response, body, (time.perf_counter() - begin) * 1e3


def measure(client, path, requests):
    response, body, _ = client.get(path)
    if response.status != 200:
        return {"status": response.status}
    _, packed, _ = client.get(path, **{"Accept-Encoding": "gzip"})
    times = [client.get(path, **{"Accept-Encoding": "gzip"})[2] for _ in range(requests)]
    out = {"bytes": len(body), "gzip_bytes": len(packed), "p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99)}
    tag = response.getheader("ETag")
    if tag:
        again, rest, ms = client.get(path, **{"If-None-Match": tag})
        out["again"] = {"status": again.status, "bytes": len(rest), "ms": round(ms, 2)}
    return out


def waits(url, key, busy_path, seconds):
    """How long GET /health takes while others ask for `busy_path` all the time."""
    stop = threading.Event()

    def ask():
        client = Client(url, key)
        while not stop.is_set():
            client.get(busy_path, **{"Accept-Encoding": "gzip"})

    asking = threading.Thread(target=ask)
    asking.start()
    client, times, end = Client(url, key), [], time.monotonic() + seconds
    while time.monotonic() < end:
        times.append(client.get("/health")[2])
        time.sleep(0.02)
    stop.set()
    asking.join()
    return {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99), "max_ms": percentile(times, 1)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="hyperscale-131k")
    parser.add_argument("--warm-s", type=float, default=60)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--speed", default="60")
    options = parser.parse_args()
    binary = Path(os.environ.get("TH_BIN", ROOT / "build/release")) / "th-sim"
    process = subprocess.Popen([binary, "serve", "--preset", options.preset, "--port", "0", "--speed", options.speed, "--json"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        start = json.loads(process.stdout.readline())
        time.sleep(options.warm_s)
        client = Client(start["url"], start["key"])
        use = json.loads(client.get("/api/v1/fleet/use")[1])
        out = {"preset": options.preset, "hosts": start["hosts"], "gpus": use["gpus"], "gpus_used": use["gpus_used"],
               "speed": start["speed"], "simulated": True,
               "routes": {path: measure(client, path, options.requests) for path in ROUTES},
               "health_waits": {"idle": waits(start["url"], start["key"], "/health", 5),
                                "beside /api/v1/fleet/use": waits(start["url"], start["key"], "/api/v1/fleet/use", 5),
                                "beside /api/v1/fleet": waits(start["url"], start["key"], "/api/v1/fleet", 5)}}
        process.send_signal(signal.SIGTERM)
        out["end"] = json.loads(process.stdout.read().strip().split("\n")[-1])
        print(json.dumps(out))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
