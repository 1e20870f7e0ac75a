"""Azurite, Microsoft's emulator of Azure Storage, on loopback with an account and a key of its own, and a client in Python to look at
and to damage what is in it."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path

PROGRAM = Path(os.environ["TH_SOURCE"]) / "tests/azurite/node_modules/azurite/dist/src/blob/main.js"


def missing():
    """Why it cannot run here; none: it can."""
    if not shutil.which("node") or not PROGRAM.is_file():
        return "no Node.js, or `npm ci` was not run in tests/azurite; make test does both"
    return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Azurite:
    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="th-azurite-"))
        self.account, self.key = "desk", secrets.token_bytes(32)
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}/{self.account}"
        self.process = None

    def connection(self, key=None):
        secret = base64.b64encode(key or self.key).decode()
        return f"AccountName={self.account};AccountKey={secret};BlobEndpoint={self.endpoint}"

    def start(self):
        env = {**os.environ, "AZURITE_ACCOUNTS": f"{self.account}:{base64.b64encode(self.key).decode()}"}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(["node", PROGRAM, "--silent", "--location", self.folder / "data", "--blobPort",
                                             str(self.port)], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 40
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        raise AssertionError("Azurite does not come up")

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self):
        """In order, so that it writes down what it has."""
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, method, path, query=None, body=b"", headers=None):
        """One request with the account's key; an error status raises."""
        query = query or {}
        headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-12-02", **(headers or {})}
        canonical = "".join(f"{k}:{v}\n" for k, v in sorted(headers.items()))
        resource = f"/{self.account}/{self.account}/{path}" + "".join(f"\n{k}:{v}" for k, v in sorted(query.items()))
        text = f"{method}\n\n\n{len(body) or ''}\n\n{'application/octet-stream' if body else ''}\n\n\n\n\n\n\n{canonical}{resource}"
        signature = base64.b64encode(hmac.new(self.key, text.encode(), hashlib.sha256).digest()).decode()
        if body:
            headers["Content-Type"] = "application/octet-stream"
        headers["Authorization"] = f"SharedKey {self.account}:{signature}"
        url = f"{self.endpoint}/{path}" + ("?" + urllib.parse.urlencode(query) if query else "")
        request = urllib.request.Request(url, method=method, data=body or None, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read()

    def make_container(self, name):
        self.ask("PUT", name, {"restype": "container"})

    def names(self, container, uncommitted=False):
        query = {"restype": "container", "comp": "list"}
        if uncommitted:
            query["include"] = "uncommittedblobs"
        listed = ElementTree.fromstring(self.ask("GET", container, query))
        return [blob.findtext("Name") for blob in listed.iter("Blob")]

    def get(self, container, name):
        return self.ask("GET", f"{container}/{name}")

    def put(self, container, name, body):
        self.ask("PUT", f"{container}/{name}", body=body, headers={"x-ms-blob-type": "BlockBlob"})

    def sas(self, container, permissions):
        """A shared access signature of the container for an hour (learn.microsoft.com, create a service SAS, version 2020-12-06)."""
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        fields = [permissions, "", expiry, f"/blob/{self.account}/{container}", "", "", "", "2021-12-02", "c", "", "", "", "", "", "", ""]
        signature = base64.b64encode(hmac.new(self.key, "\n".join(fields).encode(), hashlib.sha256).digest()).decode()
        return urllib.parse.urlencode({"sv": "2021-12-02", "se": expiry, "sr": "c", "sp": permissions, "sig": signature})
