"""Data sets, the whole way: code and JSON lines are tokenised, registered, named by a recipe, and learned from."""

import json
import re
import subprocess
import unittest

from cluster import SOURCE, ClusterTest

RECIPE = """name: tiny-code
gpus: 2
retries: 0
memory: 1GiB
time: 5m
register: tiny-code
train:
  model: {{hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2{model}}}
  data: {{set: {set}}}
  optimizer: {{lr: 0.01, warmup: 5}}
  steps: 150
  batch: 2
  seq: 64
"""


class Data(ClusterTest):
    def th(self, *args, status=0):
        done = self.cluster.th("--json", *args, check=False)
        self.assertEqual(done.returncode, status, f"th {args}\n{done.stdout}\n{done.stderr}")
        return json.loads(done.stdout)

    def recipe(self, set_name, model=""):
        path = self.cluster.state / "r.yaml"
        path.write_text(RECIPE.format(set=set_name, model=model))
        return path

    def test_code_is_added_named_and_learned_from(self):
        refused = self.th("submit", "--wait", self.recipe("code"), status=1)["error"]["message"]
        self.assertIn("data set 'code' does not exist; there is none; th data add code PATH makes one", refused)

        made = self.th("data", "add", "code", SOURCE / "src/train", "--vocab-size", 512, "--validation-share", 0.05)
        self.assertEqual((made["name"], made["version"], made["about"]["vocab_size"]), ("code", "1", 512))
        again = self.th("data", "add", "code", SOURCE / "src/train", "--vocab-size", 512, "--validation-share", 0.05)
        self.assertEqual(again["version"], "1", "the same content is no new version")
        second = self.th("data", "add", "code", SOURCE / "src/base", "--vocab-size", 400)
        self.assertEqual(second["version"], "2")
        self.assertEqual([s["version"] for s in self.th("data", "list")["items"]], ["1", "2"])
        self.assertEqual(self.th("data", "show", "code")["about"]["vocab_size"], 400)
        self.assertEqual(list((self.cluster.state / "data-work").iterdir()), [], "work folders go")

        # A version stays the job's, whatever is newest.
        job = self.th("submit", "--wait", self.recipe("code@1"))
        self.assertEqual(job["state"], "succeeded")
        result = job["result"]
        self.assertLess(result["last_loss"], 0.8 * result["first_loss"])
        log = self.cluster.th("logs", job["id"]).stdout
        self.assertIn(f"data: set code@1, {made['about']['train']['tokens']} tokens to learn from", log)
        staged = self.cluster.state / "jobs" / job["id"] / "data/code/train.tokens"
        self.assertEqual(staged.stat().st_size, next(f["bytes"] for f in made["files"] if f["name"] == "train.tokens"))

        # A model with room for fewer tokens than the tokenizer has.
        job = self.th("submit", "--wait", self.recipe("code@1", ", vocab_size: 500"), status=2)
        log = self.cluster.th("logs", job["id"]).stdout
        self.assertRegex(log, "train.model.vocab_size 500 is smaller than the tokenizer's vocabulary of 512")

        # What was added survives the controller.
        self.cluster.kill_controld()
        self.cluster.start_controld()
        self.assertEqual(self.th("data", "show", "code@1")["files"], made["files"])
        missing = self.th("data", "show", "code@7", status=1)["error"]["message"]
        self.assertIn("there are code@1, code@2", missing)

    def test_json_lines_and_what_is_wrong(self):
        lines = self.cluster.state / "d.jsonl"
        lines.write_text("".join(json.dumps({"body": f"document {i} says something"}) + "\n" for i in range(200)) + "oops\n")
        made = self.th("data", "add", "notes", lines, "--field", "body", "--vocab-size", 300)
        self.assertEqual(made["about"]["skipped"], {"not a JSON object": 1})
        self.assertEqual(made["about"]["train"]["documents"] + made["about"]["validation"]["documents"], 200)

        wrong = self.th("data", "add", "notes", lines, status=1)["error"]["message"]
        self.assertIn("holds no document to learn from; skipped no such field: 200, not a JSON object: 1", wrong)
        wrong = self.th("data", "add", "notes", lines, "--vocab-size", 3, status=1)["error"]["message"]
        self.assertIn("--vocab-size", wrong)
        wrong = self.th("data", "add", "notes", self.cluster.state / "none", status=1)["error"]
        self.assertEqual(wrong["code"], "not_found")
        self.assertEqual(len(self.th("data", "list")["items"]), 1)

    def test_a_sentencepiece_vocabulary_goes_into_the_model(self):
        text = SOURCE / "recipes/data/kjv.txt"
        subprocess.run(["spm_train", f"--input={text}", f"--model_prefix={self.cluster.state}/bible", "--vocab_size=400",
                        "--model_type=bpe", "--input_sentence_size=3000", "--byte_fallback=true"], check=True, capture_output=True)
        made = self.th("data", "add", "bible", text, "--tokenizer", self.cluster.state / "bible.model")
        self.assertEqual((made["about"]["tokenizer"], made["about"]["vocab_size"]), ("tokenizer.model", 400))
        job = self.th("submit", "--wait", self.recipe("bible"))
        self.assertEqual(job["state"], "succeeded")
        model = next(m for m in self.th("models")["items"] if m["job"] == job["id"])
        sums = {f["name"]: f["sha256"] for f in model["files"]}
        self.assertEqual(sums["tokenizer.model"], made["about"]["tokenizer_sha256"])
        self.assertNotIn("tokenizer.json", sums)

    def test_the_recipe_of_the_repository_names_what_it_needs(self):
        recipe = (SOURCE / "recipes/train/code-small.yaml").read_text()
        self.assertEqual(re.search(r"(?m)^#   (th data add .*)$", recipe)[1], "th data add code src --vocab-size 4096")
        refused = self.th("submit", "--wait", SOURCE / "recipes/train/code-small.yaml", status=1)["error"]["message"]
        self.assertIn("th data add code PATH makes one", refused)


if __name__ == "__main__":
    unittest.main()
