"""Models and checkpoints in Azure Blob, against Azurite as a server of its own: `th model` and `th-train` as people run them."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

import azurite
from cluster import BIN, SOURCE, Cluster, wait_for


def run(env, cwd, *args, timeout=120):
    return subprocess.run([BIN / args[0], *map(str, args[1:])], cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=timeout)


@unittest.skipIf(azurite.missing(), azurite.missing())
class StorageTest(unittest.TestCase):
    def setUp(self):
        self.store = azurite.Azurite().start()
        self.addCleanup(self.store.close)
        self.store.make_container("kept")
        self.folder = Path(tempfile.mkdtemp(prefix="th-storage-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.secret = self.folder / "storage"
        self.write_secret(self.store.connection())
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "TH_"))}
        self.env["TH_STORAGE_FILE"] = str(self.secret)

    def write_secret(self, text):
        self.secret.write_text(text + "\n")
        self.secret.chmod(0o600)

    def assert_no_secret(self, text):
        for word in re.findall(r"(?:AccountKey=|sig=)([^;&\s]+)", self.secret.read_text()):
            self.assertNotIn(word, text)


class Checkpoints(StorageTest):
    def recipe(self, **changes):
        text = (SOURCE / "recipes/train/llama-tiny.yaml").read_text().replace("../data/", f"{SOURCE}/recipes/data/")
        text = text.rstrip() + "\n    store: az://kept/runs/%j\n    store_wait: 20s\n"
        for key, value in changes.items():
            text, found = re.subn(rf"(?m)^( *){key}: .*$", rf"\g<1>{key}: {value}", text)
            self.assertEqual(found, 1, key)
        path = self.folder / "recipe.yaml"
        path.write_text(text)
        return path

    def train(self, job, recipe, job_id="job-7", **more):
        (self.folder / job).mkdir(exist_ok=True)
        return run({**self.env, "TH_JOB_ID": job_id, "TH_METRICS": "metrics.jsonl", **more}, self.folder / job, "th-train", "run", recipe)

    def resumed_from(self, job):
        lines = map(json.loads, (self.folder / job / "metrics.jsonl").read_text().splitlines())
        return [line["step"] for line in lines if line["event"] == "resume"]

    def whole(self):
        return sorted(int(m[1]) for n in self.store.names("kept") if (m := re.fullmatch(r"runs/job-7/\w{12}/step-(\d+)/manifest.json", n)))

    def weights(self, job):
        return (self.folder / job / "model/model.safetensors").read_bytes()

    def test_a_run_that_lost_its_disk_goes_on_from_the_store(self):
        straight = self.train("straight", self.recipe(steps=60), job_id="job-1")
        self.assertEqual(straight.returncode, 0, straight.stderr)

        recipe = self.recipe(steps=60)
        (self.folder / "first").mkdir()
        with open(self.folder / "first.log", "wb") as log:
            first = subprocess.Popen([BIN / "th-train", "run", recipe], cwd=self.folder / "first", stdout=log, stderr=log,
                                     env={**self.env, "TH_JOB_ID": "job-7"})
        self.addCleanup(first.kill)
        wait_for("a checkpoint in the store", self.whole, 60)
        first.kill()
        first.wait()
        shutil.rmtree(self.folder / "first")
        there = self.whole()

        again = self.train("second", recipe)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(self.resumed_from("second"), [there[-1]])
        self.assertEqual(self.weights("second"), self.weights("straight"), "the same bits as without the loss")
        before, last = self.whole()  # two are kept; where steps are fast those between them were left out
        self.assertEqual(last, 60)
        self.assertEqual(len({n.split("/")[3] for n in self.store.names("kept") if n.startswith("runs/job-7/")}), 2,
                         "nothing is left of those that were removed")
        self.assertFalse((self.folder / "second/checkpoints/.upload").exists())
        self.assert_no_secret(again.stdout + again.stderr + (self.folder / "first.log").read_text())

        # The newest is damaged: the one before it counts.
        shard = next(n for n in self.store.names("kept") if re.search(r"job-7/.*step-000060/.*shard", n))
        data = bytearray(self.store.get("kept", shard))
        data[len(data) // 2] ^= 1
        self.store.put("kept", shard, bytes(data))
        third = self.train("third", recipe)
        self.assertEqual(third.returncode, 0, third.stderr)
        self.assertEqual(self.resumed_from("third"), [before])
        self.assertRegex(third.stderr, r"step-000060 is passed over: .*sha256 is not the manifest's")
        self.assertEqual(self.weights("third"), self.weights("straight"))
        # It was put again, whole; two ranks read it, of which the first brings it.
        (self.folder / "fourth").mkdir()
        port = azurite.free_port()
        ranks = [subprocess.Popen([BIN / "th-train", "run", recipe], cwd=self.folder / "fourth", stdout=subprocess.DEVNULL, env={
            **self.env, "TH_JOB_ID": "job-7", "TH_METRICS": "metrics.jsonl", "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}) for rank in range(2)]
        self.assertEqual([rank.wait(60) for rank in ranks], [0, 0])
        self.assertEqual(self.resumed_from("fourth"), [60])

    def test_a_store_that_goes_away_and_comes_back(self):
        recipe = self.recipe(store_wait="60s")
        (self.folder / "job").mkdir()
        with open(self.folder / "log", "wb") as log:
            running = subprocess.Popen([BIN / "th-train", "run", recipe], cwd=self.folder / "job", stdout=log, stderr=log,
                                       env={**self.env, "TH_JOB_ID": "job-7"})
        self.addCleanup(running.kill)
        wait_for("the first checkpoint", self.whole, 60)
        self.store.stop()
        log = self.folder / "log"
        wait_for("the run to wait for the store", lambda: "waiting until the checkpoint of step 120" in log.read_text(), 60)
        self.store.start()
        self.assertEqual(running.wait(90), 0, log.read_text())
        self.assertEqual(self.whole()[-1], 120)

    def test_the_exit_status_says_that_the_last_one_is_missing(self):
        ended = self.train("job", self.recipe(steps=20, store_wait="1s"))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.write_secret(self.store.connection(b"x" * 32))
        ended = self.train("job", self.recipe(steps=40, store_wait="1s"))  # the local folder has step 20
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"the last checkpoint, of step 40, is not in the store az://kept/runs/job-7/\w+/step-000040 .*checkpoints")
        self.assertRegex(ended.stderr, r"refused with the secret from \S+storage \(Auth\w+\): a wrong or renewed key")
        self.assertTrue((self.folder / "job/model/model.safetensors").is_file())
        self.assert_no_secret(ended.stdout + ended.stderr)

    def test_what_is_wrong_is_named(self):
        for store, status, what in [("az://Kept/x", 2, "recipe.yaml:.*store.*container"),
                                    ("az://missing/x", 2, "az://missing/.*ContainerNotFound; make the container")]:
            ended = self.train("job", self.recipe(store=store))
            self.assertEqual(ended.returncode, status, ended.stderr)
            self.assertRegex(ended.stderr, what)
        self.write_secret(self.store.connection(b"x" * 32))
        ended = self.train("job", self.recipe())
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, "whether the store has a checkpoint to go on from is not known: .*a wrong or renewed key")
        self.secret.chmod(0o644)
        self.assertRegex(self.train("job", self.recipe()).stderr, "storage: others may read it.*chmod 600")
        self.secret.unlink()
        self.assertRegex(self.train("job", self.recipe()).stderr, "storage: No such file")
        self.assertFalse((self.folder / "job/model").exists())


class Models(StorageTest):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.stop_desk)
        self.start_desk()

    def start_desk(self):
        self.cluster = Cluster()
        self.cluster.start_controld()
        self.env.update(TH_STATE=str(self.cluster.state), TH_URL=self.cluster.url)

    def stop_desk(self):
        self.assertEqual(self.cluster.stop(), [])
        shutil.rmtree(self.cluster.state, ignore_errors=True)

    def th(self, *args, ok=True):
        done = run(self.env, self.folder, "th", *args)
        self.assert_no_secret(done.stdout + done.stderr)
        if ok:
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout.splitlines()[-1]) if "--json" in args else done.stdout
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return done.stderr

    def register(self, name, megabytes):
        """A model of random weights in the form that th-serve reads."""
        folder = self.folder / "model"
        folder.mkdir(exist_ok=True)
        header = json.dumps({"w": {"dtype": "F32", "shape": [megabytes << 18], "data_offsets": [0, megabytes << 20]}}).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + os.urandom(megabytes << 20))
        for file in ("config.json", "tokenizer.json"):
            (folder / file).write_text("{}")
        return self.cluster.api("POST", "/api/v1/models", {"name": name, "path": str(folder)})

    def test_push_list_and_pull(self):
        model = self.register("tiny", 20)
        self.assertEqual(model["version"], "1")
        pushed = self.th("--json", "model", "push", "tiny", "az://kept/models")
        self.assertEqual((pushed["store"], pushed["files"]), ("az://kept/models/tiny/1", 3))
        self.assertEqual(self.th("--json", "model", "list", "az://kept/models")["items"],
                         [{"name": "tiny", "version": "1", "bytes": pushed["bytes"]}])
        self.assertIn("in the registry already", self.th("model", "pull", "tiny", "az://kept/models"))

        # Another desk: nothing of it is known there. By a shared access signature this time.
        self.stop_desk()
        self.start_desk()
        self.write_secret(f"BlobEndpoint={self.store.endpoint};SharedAccessSignature={self.store.sas('kept', 'rl')}")
        self.assertIn("th models lists", self.th("model", "push", "tiny", "az://kept/models", ok=False))
        self.assertRegex(self.th("model", "pull", "tiny@2", "az://kept/models", ok=False), "no model 'tiny@2' in .*there are: tiny@1")
        pulled = self.th("--json", "model", "pull", "tiny@1", "az://kept/models")
        self.assertEqual((pulled["model"], pulled["version"], pulled["bytes"]), ("tiny", "1", pushed["bytes"]))
        there = self.cluster.api("GET", "/api/v1/models/tiny")
        self.assertEqual(there["files"], model["files"])
        self.assertEqual((Path(there["path"]) / "model.safetensors").read_bytes(), (self.folder / "model/model.safetensors").read_bytes())
        self.assertFalse(any((self.cluster.state / "pull").iterdir()))

        # Version 1 is taken in the store by another content; a right that is missing is named.
        self.cluster.api("POST", "/api/v1/models", {"name": "other", "path": str(self.folder / "model")})
        self.assertIn("lacks a permission", self.th("model", "push", "other", "az://kept/models", ok=False))
        self.write_secret(self.store.connection())
        self.th("model", "push", "other", "az://kept/models")
        (self.folder / "model/config.json").write_text('{"x": 1}')
        self.cluster.api("POST", "/api/v1/models", {"name": "other", "path": str(self.folder / "model")})
        self.th("model", "push", "other@2", "az://kept/models")
        manifest = self.store.get("kept", "models/other/2/manifest.json")
        self.store.put("kept", "models/other/1/manifest.json", manifest)
        self.assertIn("with other content", self.th("model", "push", "other@1", "az://kept/models", ok=False))

    def test_refusals_and_damage(self):
        self.register("tiny", 1)
        self.assertIn("ContainerNotFound; make the container", self.th("model", "push", "tiny", "az://missing/x", ok=False))
        self.write_secret(self.store.connection(b"x" * 32))
        refused = self.th("model", "push", "tiny", "az://kept/m", ok=False)
        self.assertRegex(refused, "refused with the secret from .*storage .*a wrong or renewed key")
        self.write_secret(self.store.connection())
        self.th("model", "push", "tiny", "az://kept/m")
        name = next(n for n in self.store.names("kept") if n.endswith("config.json"))
        self.store.put("kept", name, b"[]")  # as long as before
        self.stop_desk()
        self.start_desk()
        self.assertRegex(self.th("model", "pull", "tiny", "az://kept/m", ok=False), r"config.json: its sha256 is not the manifest's")
        self.assertEqual(self.cluster.api("GET", "/api/v1/models")["items"], [])
        self.store.put("kept", "m/tiny/1/manifest.json", b'{"version":1,"files":[{"name":"../x"')
        self.assertIn("manifest is damaged", self.th("model", "pull", "tiny", "az://kept/m", ok=False))
        local = self.register("mine", 1)
        (Path(local["path"]) / "config.json").write_text("[]")
        self.assertIn("it is damaged, nothing was sent", self.th("model", "push", "mine", "az://kept/m", ok=False))
        self.assertNotIn("mine", " ".join(self.store.names("kept")))

    def test_a_server_killed_in_the_midst_of_an_upload(self):
        self.register("big", 100)
        wait_for("the server to write down the container", lambda: b'"kept"' in b"".join(
            f.read_bytes() for f in (self.store.folder / "data").glob("__azurite_db_blob__.json")), 30)
        push = subprocess.Popen([BIN / "th", "model", "push", "big", "az://kept/m"], env=self.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        self.addCleanup(push.kill)
        extents = self.store.folder / "data/__blobstorage__"
        wait_for("some blocks", lambda: sum(f.stat().st_size for f in extents.iterdir()) > 24 << 20, 60, 0.01)
        self.store.kill()
        self.assertIsNone(push.poll(), "it waits for the server")
        self.store.start()
        self.assertFalse([n for n in self.store.names("kept") if n.endswith(("manifest.json", "model.safetensors"))],
                         "nothing half is to be seen")
        # The server has forgotten the blocks of its last seconds; they are sent again.
        self.assertEqual(push.wait(150), 0)
        self.stop_desk()
        self.start_desk()
        self.th("model", "pull", "big", "az://kept/m")
        there = Path(self.cluster.api("GET", "/api/v1/models/big")["path"])
        self.assertEqual((there / "model.safetensors").read_bytes(), (self.folder / "model/model.safetensors").read_bytes())

    def test_a_push_that_was_given_up_goes_on_where_it_was(self):
        self.register("big", 200)
        push = subprocess.Popen([BIN / "th", "model", "push", "big", "az://kept/m"], env=self.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(push.stdout.close)
        self.addCleanup(push.kill)
        extents = self.store.folder / "data/__blobstorage__"
        wait_for("some blocks", lambda: sum(f.stat().st_size for f in extents.iterdir()) > 80 << 20, 60, 0.01)
        self.store.stop()
        push.send_signal(signal.SIGINT)
        self.assertNotEqual(push.wait(30), 0, push.stdout.read())
        before = sum(f.stat().st_size for f in extents.iterdir())
        self.assertLess(before, 200 << 20)
        self.store.start()
        names = self.store.names("kept")
        self.assertFalse([n for n in names if n.endswith(("manifest.json", "model.safetensors"))], "nothing half is to be seen")
        self.assertIn("there is none", self.th("model", "pull", "big", "az://kept/m", ok=False))
        self.th("model", "push", "big", "az://kept/m")
        after = sum(f.stat().st_size for f in extents.iterdir())
        self.assertLess(after, (200 + 50) << 20, "blocks that were there are not sent again: all would be 280 MiB")
        self.assertEqual(self.th("--json", "model", "list", "az://kept/m")["items"][0]["version"], "1")


if __name__ == "__main__":
    unittest.main()
