#!/usr/bin/env python3
"""make vm-demo: a slice of real VMs by libvirt, a training job in them over Gloo, its model served, everything released. libvirt, bridge, controller and VMs
live in a machine of their own (libvirt_testbed.py) and end with it, also on Ctrl-C. Progress goes to stderr; the last line of
stdout is one JSON object: nodes ready_s ranks last_step first_loss last_loss vms_left, and what the VMs took.

  tools/vm_demo.py [--nodes N] [--steps N] [--acceleration auto|kvm|software] [--keep-folder]

TH_BIN names the folder of the programs (build/release), TH_VM_DEMO_FOLDER the scratch folder (build/vm_demo). Needs root."""

import argparse
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from libvirt_testbed import ADDRESS, ADDRESSES, BRIDGE, LibvirtTestbed  # noqa: E402

BIN = Path(os.environ.get("TH_BIN", ROOT / "build/release")).resolve()
FOLDER = Path(os.environ.get("TH_VM_DEMO_FOLDER", ROOT / "build/vm_demo")).resolve()
URL = f"https://{ADDRESS}:7070"
DATA = FOLDER / "data"  # shared with the VMs
TEXT_BYTES = 300_000  # of the King James Bible: emulated processors are slow
STATES = ("succeeded", "failed", "cancelled")

CLOUD = """cloud:
  kind: libvirt
  image: {image}
  bridge: {bridge}
  addresses: {addresses}
  memory: 400MiB
  share: [{data}]
  acceleration: {acceleration}
"""
# Small enough for processors that are emulated.
RECIPE = """name: vm-demo
gpus: {ranks}
train:
  model: {{hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2}}
  data: {{text: data/text.txt, vocab_size: 320, validation_share: 0.005}}
  optimizer: {{lr: 0.01, warmup: 4}}
  steps: {steps}
  batch: {batch}
  seq: 32
  seed: 1
  checkpoint: {{every: 20, keep: 1}}
"""


def say(text):
    print(f"[{time.monotonic() - START:6.1f} s] {text}", file=sys.stderr, flush=True)


def trust():
    return ssl.create_default_context(cafile=FOLDER / "state/authority.pem")


def api(method, path, body=None, timeout=30):
    key = (FOLDER / "state/admin.key").read_text().strip()
    request = urllib.request.Request(f"{URL}/api/v1{path}", method=method, data=None if body is None else json.dumps(body).encode(),
                                     headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=trust()) as answer:
            text = answer.read()
    except urllib.error.HTTPError as refusal:
        raise SystemExit(f"{method} {path}: {refusal.read().decode()}") from None
    return json.loads(text) if text else None


def virsh(*argv):
    return subprocess.run(["virsh", "-c", "qemu:///system", *argv], check=True, capture_output=True, text=True).stdout


def wait(what, look, seconds, every=0.5):
    end = time.monotonic() + seconds
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds} s in vain for {what}")
        time.sleep(every)


def start_controller(arguments):
    hosts = ", ".join(f"{{id: h{i}, series: LOCAL}}" for i in range(1, arguments.nodes + 1))
    (FOLDER / "fleet.yaml").write_text("name: vm-demo\nsites:\n  - id: here\n    racks:\n      - id: r1\n        leaf: leaf1\n"
                                       f"        power_budget_w: 10000\n        hosts: [{hosts}]\nswitches: [{{id: leaf1, tier: leaf}}]\n")
    (FOLDER / "cloud.yaml").write_text(CLOUD.format(image=arguments.image, bridge=BRIDGE, addresses=ADDRESSES, data=DATA,
                                                    acceleration=arguments.acceleration))
    with open(FOLDER / "controld.log", "w") as log:
        controller = subprocess.Popen([BIN / "th-controld", "--state", FOLDER / "state", "--fleet", FOLDER / "fleet.yaml",
                                       "--cloud", FOLDER / "cloud.yaml", "--address", ADDRESS, "--tls", "auto"], stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log)

    def healthy():
        if controller.poll() is not None:
            raise SystemExit((FOLDER / "controld.log").read_text())
        try:
            return urllib.request.urlopen(URL + "/health", timeout=2, context=trust()).status == 200
        except OSError:
            return False
    wait("the controller", healthy, 20, 0.1)
    return controller


def acquire(nodes):
    """Returns the seconds until every VM was validated."""
    start, said = time.monotonic(), {}
    api("POST", "/slices", {"name": "vms", "nodes": nodes, "series": "LOCAL", "stack": "train", "duration_ns": 3600 * 10**9})
    api("POST", "/slices/vms/commit")

    def ready():
        now = api("GET", "/slices/vms")
        for domain in virsh("list", "--name").split():
            if said.setdefault(domain, "") != "runs":
                said[domain] = "runs"
                say(f"domain {domain} runs")
        for node in now["nodes"]:
            if said.get(node["name"]) != node["state"]:
                said[node["name"]] = node["state"]
                say(f"node {node['name']} is {node['state']} {node.get('reason') or ''}")
        if now["state"] in ("failed", "released", "expired"):
            raise SystemExit(f"the slice is {now['state']}: {now.get('reason') or now}")
        return now["state"] == "ready"
    wait("the slice to be ready", ready, 900)
    return time.monotonic() - start


def vm_memory():
    """Of each VM in MiB: what its QEMU really holds."""
    sizes = []
    for domain in virsh("list", "--name").split():
        stats = dict(line.split() for line in virsh("dommemstat", domain).splitlines() if line.strip())
        sizes.append(int(stats["rss"]) >> 10)
    return sizes


def train(arguments):
    job = api("POST", "/jobs", {"name": "vm-demo", "slice": "vms", "gpus": arguments.nodes, "min_nodes": arguments.nodes, "max_nodes": arguments.nodes, "retries": 1,
                                "register": "vm-demo", "command": ["th-train", "run", "recipe.yaml"], "stage": {"data/text.txt": str(DATA / "text.txt")},
                                "files": {"recipe.yaml": RECIPE.format(ranks=arguments.nodes, batch=arguments.nodes, steps=arguments.steps)}})
    last = {}

    def done():
        now = api("GET", f"/jobs/{job['id']}")
        step = (now.get("progress") or {}).get("step")
        if (now["state"], step) != last.get("said"):
            last["said"] = (now["state"], step)
            say(f"{job['id']} is {now['state']}" + (f", step {step}, loss {now['progress'].get('loss')}" if step is not None else ""))
        return now if now["state"] in STATES else None
    now = wait("the job", done, 1500)
    if now["state"] != "succeeded":
        for log in sorted((FOLDER / "state/logs").glob(f"{job['id']}/*.log")):
            print(f"--- {log}", *log.read_text(errors="replace").splitlines()[-8:], sep="\n", file=sys.stderr)
        raise SystemExit(f"the job is {now['state']}: {now.get('reason')}")
    return now


def serve():
    """Deploys what was trained on one of the VMs; returns the number of tokens that it answered with."""
    api("POST", "/deployments", {"name": "vm-demo", "model": "vm-demo", "slice": "vms"})

    def ready():
        now = api("GET", "/deployments/vm-demo")
        if now["state"] in ("failed", "stopped"):
            raise SystemExit(f"the deployment is {now['state']}: {now.get('reason')}")
        return now if now["state"] == "ready" else None
    url = wait("the deployment", ready, 180)["url"]
    body = json.dumps({"model": "vm-demo", "prompt": "In the beginning", "max_tokens": 8}).encode()
    request = urllib.request.Request(url + "/v1/completions", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        tokens = json.loads(answer.read())["usage"]["completion_tokens"]
    say(f"the model is served at {url}; it answered with {tokens} tokens")
    return tokens


def inside(arguments):
    """In the testbed's machine."""
    controller = start_controller(arguments)
    try:
        ready_s = acquire(arguments.nodes)
        how = "software emulation (no KVM)" if "type='qemu'" in virsh("dumpxml", virsh("list", "--name").split()[0]) else "KVM"
        say(f"{arguments.nodes} VMs are validated after {ready_s:.1f} s; they run in {how}")
        job = train(arguments)
        memory, load = vm_memory(), os.getloadavg()[0]
        places = {rank["node"] for rank in job["ranks"]}
        checkpoints = sorted(p.name for p in (FOLDER / f"state/jobs/{job['id']}").iterdir())
        say(f"ranks ran on {', '.join(sorted(places))}; the job's folder has here: {', '.join(checkpoints)}")
        tokens = serve()
        api("DELETE", "/slices/vms")
        wait("the slice to be released", lambda: api("GET", "/slices/vms")["state"] == "released", 120)
    except BaseException:
        print("--- controld.log", *(FOLDER / "controld.log").read_text().splitlines()[-15:], sep="\n", file=sys.stderr)
        raise
    finally:
        controller.terminate()
        controller.wait()
    left = virsh("list", "--all", "--name").split()
    result, last_step = job["result"], job["progress"]["step"]
    print(json.dumps({"nodes": arguments.nodes, "ready_s": round(ready_s, 1), "ranks": len(job["ranks"]), "last_step": last_step,
                      "first_loss": result["first_loss"], "last_loss": result["last_loss"], "vms_left": len(left),
                      "nodes_used": len(places), "tokens_served": tokens, "processor": how, "vm_memory_mib": max(memory), "load": round(load, 1),
                      "seconds": round(time.monotonic() - START, 1)}))
    good = not left and last_step == arguments.steps and result["last_loss"] < result["first_loss"]
    return 0 if good and len(places) == arguments.nodes else 1


def outside(arguments):
    if os.geteuid() != 0:
        raise SystemExit("vm_demo: needs root, for namespaces, a bridge and VMs")
    for program in ("th-controld", "th-node", "th-train"):
        if not (BIN / program).exists():
            raise SystemExit(f"vm_demo: {BIN / program}: no such program; run make build")
    subprocess.run([ROOT / "tools/vm_image", arguments.image, "--bin", BIN], check=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "state").mkdir(parents=True)
    DATA.mkdir()
    (DATA / "text.txt").write_bytes((ROOT / "recipes/data/kjv.txt").read_bytes()[:TEXT_BYTES])
    testbed = LibvirtTestbed(FOLDER, [BIN, arguments.image])
    try:
        testbed.up()
        say("libvirt and a bridge run, in a machine of their own")
        done = testbed.machine.run(sys.executable, __file__, *sys.argv[1:], "--inside", str(START), check=False)
        return done.returncode
    finally:
        testbed.down()
        if not arguments.keep_folder:
            shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--acceleration", default="auto")
    parser.add_argument("--image", type=Path, default=ROOT / "build/vm_image")
    parser.add_argument("--keep-folder", action="store_true")
    parser.add_argument("--inside", type=float, help=argparse.SUPPRESS)  # when the demo began
    options = parser.parse_args()
    options.image = options.image.resolve()
    START = options.inside or time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended as after Ctrl-C
    try:
        sys.exit(inside(options) if options.inside else outside(options))
    except KeyboardInterrupt:
        sys.exit("vm_demo: interrupted; everything it started was ended")
