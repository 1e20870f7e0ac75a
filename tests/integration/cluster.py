"""A real desk cluster for one test: th-controld, th-gateway, th-node and ranks as processes, on free ports of loopback, in a
state folder of its own. Everything it starts it also ends, and it says if something was left."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

BIN = Path(os.environ["TH_BIN"])
SOURCE = Path(os.environ["TH_SOURCE"])
DESK = SOURCE / "recipes/fleet/desk.yaml"
TINY = SOURCE / "recipes/train/llama-tiny.yaml"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def processes_of(state):
    """Pids of every live process that has the state folder in its command line, environment or working folder."""
    found, needle = [], str(state).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            texts = [(entry / "cmdline").read_bytes(), (entry / "environ").read_bytes(),
                     os.readlink(entry / "cwd").encode()]
            if any(needle in t for t in texts) and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def wait_for(what, condition, seconds=30, every=0.05):
    """Waits until condition() gives something true, and returns that; else fails naming `what`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"waited {seconds} s in vain for: {what}")


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"HTTP {status}: {body}")
        self.status, self.body = status, body


class Cluster:
    def __init__(self, fleet=DESK, policy=None):
        """`policy`: the text of policy.yaml."""
        self.state = Path(tempfile.mkdtemp(prefix="th-test-"))
        self.state.chmod(0o711)
        self.fleet, self.policy = fleet, None
        if policy:
            self.policy = self.state / "given.yaml"
            self.policy.write_text(policy)
        self.port, self.gateway_port = free_port(), free_port()
        self.url, self.gateway_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.gateway_port}"
        self.controld = self.gateway = None

    # processes
    def spawn(self, log, program, *args):
        with open(self.state / log, "ab") as output:
            return subprocess.Popen([BIN / program, *map(str, args)], stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def start_controld(self):
        self.controld = self.spawn("controld.log", "th-controld", "--state", self.state, "--fleet", self.fleet,
                                   "--port", self.port, *(["--policy", self.policy] if self.policy else []))
        self.wait_healthy(self.url + "/health", self.controld)

    def start_gateway(self):
        self.gateway = self.spawn("gateway.log", "th-gateway", "--controller", self.url, "--token-file",
                                  self.state / "gateway.token", "--state", self.state, "--port", self.gateway_port)
        self.wait_healthy(self.gateway_url + "/health", self.gateway)

    @staticmethod
    def wait_healthy(url, process):
        def healthy():
            if process.poll() is not None:
                raise AssertionError(f"{process.args[0]} ended with {process.returncode}")
            try:
                return http("GET", url, timeout=2)[0] == 200
            except OSError:
                return False
        wait_for(url, healthy, 20)

    def start(self):
        self.start_controld()
        self.start_gateway()
        return self

    def kill_controld(self):
        self.controld.send_signal(signal.SIGKILL)
        self.controld.wait()

    def stop(self):
        with contextlib.suppress(OSError, Refused, subprocess.TimeoutExpired):
            if self.controld and self.controld.poll() is None:
                self.api("POST", "/api/v1/shutdown", {"nodes": True}, timeout=30)
                self.controld.wait(30)
        for process in (self.gateway, self.controld):
            if process and process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                if process.poll() is None:
                    process.kill()
                    process.wait()
        time.sleep(0.2)
        left = processes_of(self.state)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return left

    def recipe(self, name, **changes):
        """llama-tiny under another name, with other values for some of its keys; returns its file in the state folder."""
        text = TINY.read_text().replace("../data/", f"{SOURCE}/recipes/data/")
        for key, value in {"name": name, "register": name, **changes}.items():
            text, found = re.subn(rf"(?m)^( *){key}: .*$", rf"\g<1>{key}: {value}", text)
            assert found == 1, f"llama-tiny has {found} keys {key}"
        path = self.state / f"{name}.yaml"
        path.write_text(text)
        return path

    # REST and command line
    def key(self):
        return (self.state / "admin.key").read_text().strip()

    def api(self, method, path, body=None, timeout=20, headers=None, key=None):
        status, answer = http(method, self.url + path, body, timeout,
                              {"Authorization": f"Bearer {key or self.key()}", **(headers or {})})
        if status >= 300:
            raise Refused(status, answer)
        return json.loads(answer) if answer else None

    def th(self, *args, check=True, timeout=240, **kwargs):
        done = subprocess.run([BIN / "th", "--state", self.state, *map(str, args)], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, **kwargs)
        if check and done.returncode != 0:
            raise AssertionError(f"th {' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def th_json(self, *args, **kwargs):
        done = self.th("--json", *args, **kwargs)
        return json.loads(done.stdout.strip().split("\n")[-1])

    # the usual steps
    def slice(self, name="demo", gpus=4):
        return self.th_json("slice", "create", name, "--gpus", gpus, "--series", "LOCAL", "--for", "1h")

    def submit(self, *args):
        return self.th_json("submit", "--detach", *args)["id"]

    def job(self, job):
        return self.api("GET", f"/api/v1/jobs/{job}")

    def wait_job(self, job, states=("succeeded",), seconds=120):
        def done():
            now = self.job(job)
            if now["state"] in states:
                return now
            if now["state"] in ("succeeded", "failed", "cancelled"):
                raise AssertionError(f"{job} is {now['state']}, wanted {states}: {json.dumps(now)}\n{self.log_tail(job)}")
            return None
        return wait_for(f"{job} to be {states}", done, seconds)

    def wait_step(self, job, step, seconds=60):
        return wait_for(f"{job} to pass step {step}",
                        lambda: (self.job(job).get("progress") or {}).get("step", -1) >= step, seconds)

    def log_tail(self, job):
        files = sorted((self.state / "logs" / job).glob("*.log")) if (self.state / "logs" / job).is_dir() else []
        return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')[-2000:]}" for f in files)

    def rank_pids(self, job):
        """rank → pid of the job's live rank leaders, by their environment."""
        found = {}
        for pid in processes_of(self.state):
            with contextlib.suppress(OSError):
                env = dict(p.split("=", 1) for p in Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0") if "=" in p)
                if env.get("TH_JOB_ID") == job and os.getpgid(pid) == pid:
                    found[int(env["RANK"])] = pid
        return found

    def node_pids(self):
        """VM name → pid of its th-node."""
        pids = {}
        for pid in processes_of(self.state):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if Path(words[0]).name == "th-node":
                    pids[Path(words[words.index("--config") + 1]).parent.name] = pid
        return pids


def http(method, url, body=None, timeout=20, headers=None):
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


class ClusterTest(unittest.TestCase):
    """One cluster a test; its folder is kept and shown when the test fails."""

    def setUp(self):
        self.cluster = Cluster().start()

    def tearDown(self):
        left = self.cluster.stop()
        failed = any(error for _, error in self._outcome.result.errors + self._outcome.result.failures
                     if _ is self) if hasattr(self._outcome, "result") else False
        if failed:
            for name in ("controld.log", "gateway.log"):
                path = self.cluster.state / name
                if path.is_file():
                    print(f"--- {name}\n{path.read_text(errors='replace')[-6000:]}")
            print(f"state kept in {self.cluster.state}")
        else:
            shutil.rmtree(self.cluster.state, ignore_errors=True)
        self.assertEqual(left, [], "processes left behind")
