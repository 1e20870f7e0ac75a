"""th-train export: GGUF files read as the specification says (ggml-org/ggml, docs/gguf.md) and held against the model's own files, and
loaded by llama.cpp, whose predictions are held against the same arithmetic written out here."""

import json
import math
import re
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

from cluster import BIN, SOURCE

TRAIN = BIN / "th-train"
CLIENT = SOURCE / "tests/gguf"
HEADS, KEYS, WIDTH = 4, 2, 16  # of the Llama; GPT-2 has as many keys as heads
RECIPE = """name: tiny
train:
  model: {{family: {family}, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, vocab_size: 520{more}}}
  data: {{text: {text}, vocab_size: 512, validation_share: 0.002}}
  optimizer: {{lr: 0.004, warmup: 10}}
  steps: 120
  batch: 4
  seq: 64
"""
# Numbers of tensor types, and of general.file_type.
TYPES = {"f32": (0, 0), "f16": (1, 1), "q8_0": (8, 7), "bf16": (30, 32)}
SCALARS = {4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q"}
NAMES = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm", "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "ln_1": "attn_norm", "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


class Gguf:
    def __init__(self, path):
        self.bytes, self.at = path.read_bytes(), 0
        assert self.bytes[:4] == b"GGUF"
        self.at = 4
        assert self.take("<I") == 3
        tensors, pairs = self.take("<Q"), self.take("<Q")
        self.metadata, self.tensors = {}, {}
        for _ in range(pairs):
            key = self.text()
            assert key not in self.metadata
            self.metadata[key] = self.value(self.take("<I"))
        for _ in range(tensors):
            name = self.text()
            shape = [self.take("<Q") for _ in range(self.take("<I"))]
            self.tensors[name] = (shape, self.take("<I"), self.take("<Q"))
        alignment = self.metadata["general.alignment"]
        self.data = (self.at + alignment - 1) // alignment * alignment
        assert not any(self.bytes[self.at:self.data])

    def take(self, form):
        value, = struct.unpack_from(form, self.bytes, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self):
        size = self.take("<Q")
        self.at += size
        return self.bytes[self.at - size:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind != 9:
            return self.take(SCALARS[kind])
        kind = self.take("<I")
        return [self.value(kind) for _ in range(self.take("<Q"))]


def safetensors(path):
    """Each tensor's shape and values."""
    content = path.read_bytes()
    size, = struct.unpack_from("<Q", content)
    header = json.loads(content[8:8 + size])
    found = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            found[name] = (tensor["shape"], struct.unpack_from(f"<{(end - begin) // 4}f", content, 8 + size + begin))
    return found


def rows_of(name, shape, values):
    """Rows of (out,in), as a product takes them: GPT-2's projections are stored the other way."""
    rows = [list(values[i * shape[-1]:(i + 1) * shape[-1]]) for i in range(len(values) // shape[-1])]
    return [list(row) for row in zip(*rows)] if re.search(r"c_(attn|proj|fc)\.weight", name) else rows


def interleaved(rows):
    """Within each head: first half and second half take turns."""
    out = []
    for head in range(0, len(rows), WIDTH):
        for i in range(WIDTH // 2):
            out += [rows[head + i], rows[head + WIDTH // 2 + i]]
    return out


def stored(values, kind):
    """The bytes of a row."""
    if kind == "f32":
        return struct.pack(f"<{len(values)}f", *values)
    if kind == "f16":
        return struct.pack(f"<{len(values)}e", *values)
    if kind == "bf16":
        bits = struct.unpack(f"<{len(values)}I", struct.pack(f"<{len(values)}f", *values))
        return struct.pack(f"<{len(values)}H", *((b + 0x7FFF + (b >> 16 & 1)) >> 16 for b in bits))
    out = b""
    for i in range(0, len(values), 32):
        block = values[i:i + 32]
        scale = f32(max(map(abs, block)) / 127)
        inverse = f32(1 / scale) if scale else 0
        scaled = [f32(v * inverse) for v in block]
        out += struct.pack("<e32b", scale, *(int(math.copysign(math.floor(abs(v) + 0.5), v)) for v in scaled))
    return out


def bpe(tokenizer, text):
    """Ids by the merges of a tokenizer.json, for ASCII text."""
    merges = {pair: rank for rank, pair in enumerate(tokenizer["model"]["merges"])}
    ids = []
    for word in re.findall(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", text):
        parts = list(word.replace(" ", "Ġ").replace("\n", "Ċ"))
        while len(parts) > 1:
            rank, at = min((merges.get(f"{a} {b}", math.inf), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
            if rank == math.inf:
                break
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        ids += [tokenizer["model"]["vocab"][part] for part in parts]
    return ids


def times(rows, x, bias=None):
    return [sum(w * v for w, v in zip(row, x)) + (bias[i] if bias else 0) for i, row in enumerate(rows)]


def attention(queries, keys, values):
    """Of the last position; each a list over positions of a list over heads."""
    out = []
    for head, query in enumerate(queries[-1]):
        at = head * len(keys[0]) // len(queries[-1])
        scores = [math.exp(sum(map(float.__mul__, query, k[at])) / math.sqrt(WIDTH)) for k in keys]
        for i in range(WIDTH):
            out.append(sum(s * v[at][i] for s, v in zip(scores, values)) / sum(scores))
    return out


def heads(x):
    return [x[i:i + WIDTH] for i in range(0, len(x), WIDTH)]


def rotated(head, position):
    half, out = WIDTH // 2, list(head)
    for i in range(half):
        angle = position * 10000 ** (-i / half)
        out[i] = head[i] * math.cos(angle) - head[i + half] * math.sin(angle)
        out[i + half] = head[i + half] * math.cos(angle) + head[i] * math.sin(angle)
    return out


class Model:
    """The forward pass from Hugging Face's files, one vector at a time."""

    def __init__(self, family, folder):
        self.is_llama = family == "llama"
        self.eps = json.loads((folder / "config.json").read_text())["rms_norm_eps" if self.is_llama else "layer_norm_epsilon"]
        self.w = {n: rows_of(n, *t) if len(t[0]) == 2 else list(t[1]) for n, t in safetensors(folder / "model.safetensors").items()}

    def norm(self, name, x):
        mean = 0 if self.is_llama else sum(x) / len(x)
        scale = 1 / math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + self.eps)
        bias = self.w.get(name + ".bias", [0] * len(x))
        return [(v - mean) * scale * w + b for v, w, b in zip(x, self.w[name + ".weight"], bias)]

    def linear(self, name, x):
        return times(self.w[name + ".weight"], x, self.w.get(name + ".bias"))

    def qkv(self, at, x, position):
        if self.is_llama:
            q, k, v = (heads(self.linear(f"{at}self_attn.{n}_proj", x)) for n in "qkv")
            return [rotated(h, position) for h in q], [rotated(h, position) for h in k], v
        qkv = heads(self.linear(at + "attn.c_attn", x))
        return qkv[:HEADS], qkv[HEADS:2 * HEADS], qkv[2 * HEADS:]

    def mlp(self, at, x):
        if self.is_llama:
            gate, up = self.linear(at + "mlp.gate_proj", x), self.linear(at + "mlp.up_proj", x)
            return self.linear(at + "mlp.down_proj", [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)])
        up = self.linear(at + "mlp.c_fc", x)
        gelu = [v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v ** 3))) for v in up]
        return self.linear(at + "mlp.c_proj", gelu)

    def predict(self, ids):
        w, llama = self.w, self.is_llama
        xs = [list(w["model.embed_tokens.weight" if llama else "transformer.wte.weight"][i]) for i in ids]
        if not llama:
            xs = [[a + b for a, b in zip(x, w["transformer.wpe.weight"][i])] for i, x in enumerate(xs)]
        names = ("input_layernorm", "self_attn.o_proj", "post_attention_layernorm") if llama else ("ln_1", "attn.c_proj", "ln_2")
        for layer in range(2):
            at = f"model.layers.{layer}." if llama else f"transformer.h.{layer}."
            qs, ks, vs = zip(*(self.qkv(at, self.norm(at + names[0], x), i) for i, x in enumerate(xs)))
            for i, x in enumerate(xs):
                x = [a + b for a, b in zip(x, self.linear(at + names[1], attention(qs[:i + 1], ks[:i + 1], vs[:i + 1])))]
                xs[i] = [a + b for a, b in zip(x, self.mlp(at, self.norm(at + names[2], x)))]
        last = self.norm("model.norm" if llama else "transformer.ln_f", xs[-1])
        logits = times(w["lm_head.weight" if llama else "transformer.wte.weight"], last)
        largest = max(logits)
        weights = [math.exp(v - largest) for v in logits]
        return [v / sum(weights) for v in weights]


def distance(some, others):
    return max(abs(math.log(a / b)) for a, b in zip(some, others))


class Export(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="th-gguf-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for family, more in (("llama", ", num_key_value_heads: 2, intermediate_size: 160, tie_word_embeddings: false"), ("gpt2", "")):
            job = cls.folder / family
            job.mkdir()
            (job / "recipe.yaml").write_text(RECIPE.format(family=family, more=more, text=SOURCE / "recipes/data/kjv.txt"))
            subprocess.run([TRAIN, "run", "recipe.yaml"], cwd=job, check=True, capture_output=True, timeout=100)

    def export(self, *argv, status=0):
        done = subprocess.run([TRAIN, "export", *map(str, argv), "--json"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def exported(self, family, kind):
        path = self.folder / f"{family}-{kind}.gguf"
        made = self.export(self.folder / family / "model", "--gguf", path, "--type", kind)
        self.assertEqual(made["bytes"], path.stat().st_size)
        self.assertEqual(list(self.folder.glob("*.tmp*")), [])
        return path

    def need_llama_cpp(self):
        if not shutil.which("node") or not (CLIENT / "node_modules/node-llama-cpp").is_dir():
            self.skipTest("no Node.js, or `npm ci` was not run in tests/gguf; make test does both")

    def ask_llama_cpp(self, path, texts, predict):
        asked = json.dumps({"file": str(path), "texts": texts, "predict": predict})
        done = subprocess.run(["node", "run.mjs", asked], cwd=CLIENT, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def check_tensors(self, gguf, family, kind):
        originals = safetensors(self.folder / family / "model/model.safetensors")
        self.assertEqual(len(originals), len(gguf.tensors))
        end = 0
        for name, (shape, values) in originals.items():
            stem, part = re.sub(r"^(model\.layers|transformer\.h)\.\d+\.", "", name).rsplit(".", 1)
            layer = re.search(r"\.(\d+)\.", name)
            place = f"blk.{layer[1]}." if layer else ""
            found_shape, found_type, offset = gguf.tensors[f"{place}{NAMES[stem]}.{part}"]
            rows = rows_of(name, shape, values)
            if re.search(r"[qk]_proj", name):
                rows = interleaved(rows)
            as_stored = "f32" if len(shape) == 1 or NAMES[stem] == "position_embd" else kind
            self.assertEqual(found_shape, [len(rows[0])] + [len(rows)] * (len(shape) - 1), name)
            self.assertEqual((found_type, offset % 32), (TYPES[as_stored][0], 0), name)
            expected = b"".join(stored(row, as_stored) for row in rows)
            begin = gguf.data + offset
            self.assertTrue(gguf.bytes[begin:begin + len(expected)] == expected, f"{kind} {name}")
            end = max(end, begin + len(expected))
        self.assertEqual(len(gguf.bytes), (end + 31) // 32 * 32)

    def check_metadata(self, gguf, family, kind):
        m = gguf.metadata
        tokenizer = json.loads((self.folder / family / "model/tokenizer.json").read_text())
        ids = tokenizer["model"]["vocab"] | {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
        self.assertEqual(m["tokenizer.ggml.tokens"], sorted(ids, key=ids.get) + [f"[PAD{i}]" for i in range(512, 520)])
        self.assertEqual(m["tokenizer.ggml.token_type"], [3] * 4 + [1] * 508 + [5] * 8)
        self.assertEqual(m["tokenizer.ggml.merges"], tokenizer["model"]["merges"])
        expected = {"general.architecture": family, "general.file_type": TYPES[kind][1], "general.name": "model",
                    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.eos_token_id": 0,
                    "tokenizer.ggml.add_bos_token": False, f"{family}.context_length": 64, f"{family}.embedding_length": 64,
                    f"{family}.feed_forward_length": 160 if family == "llama" else 256, f"{family}.block_count": 2,
                    f"{family}.attention.head_count": 4, f"{family}.vocab_size": 520}
        if family == "llama":
            expected |= {"llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 16, "llama.rope.freq_base": 10000.0}
        self.assertEqual({key: m.get(key) for key in expected}, expected)

    def test_files_are_as_the_specification_says(self):
        for family in ("llama", "gpt2"):
            for kind in TYPES:
                with self.subTest(family=family, type=kind):
                    gguf = Gguf(self.exported(family, kind))
                    self.check_metadata(gguf, family, kind)
                    self.check_tensors(gguf, family, kind)

    def test_llama_cpp_predicts_the_same(self):
        self.need_llama_cpp()
        text = "In the beginning God's 7 days,\n  and the earth"
        for family in ("llama", "gpt2"):
            folder = self.folder / family / "model"
            ids = bpe(json.loads((folder / "tokenizer.json").read_text()), text)
            model = Model(family, folder)
            expected = model.predict(ids)
            if family == "llama":  # that the order of the rows of q and k would show
                model.w |= {n: interleaved(rows) for n, rows in model.w.items() if re.search("[qk]_proj", n)}
                self.assertGreater(distance(model.predict(ids), expected), 5e-3)
            for kind, near in (("f32", 1e-3), ("f16", 3e-3), ("bf16", 0.03), ("q8_0", 0.05)):
                with self.subTest(family=family, type=kind):
                    found = self.ask_llama_cpp(self.exported(family, kind), [text], [ids])
                    self.assertEqual((found["tokens"], found["decoded"], found["eos"]), ([ids], [text], 0))
                    predicted = [found["predicted"][0][str(i)] for i in range(520)]
                    worst = distance(predicted, expected)
                    print(f"{family} {kind}: log probabilities differ from the model's by {worst:.1e} at most", flush=True)
                    self.assertLess(worst, near)

    def test_sentencepiece(self):
        self.need_llama_cpp()
        model, file = self.folder / "pieces", self.folder / "pieces.gguf"
        shutil.copytree(self.folder / "llama/model", model)
        (model / "tokenizer.json").unlink()
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"bos_token_id": 1, "eos_token_id": 2}))
        for kind in ("unigram", "bpe"):
            subprocess.run(["spm_train", f"--input={SOURCE}/recipes/data/kjv.txt", f"--model_prefix={model}/tokenizer", "--vocab_size=400",
                            f"--model_type={kind}", "--input_sentence_size=3000", "--byte_fallback=true"], check=True, capture_output=True)
            if kind == "unigram":
                refused = self.export(model, "--gguf", file, status=2)["error"]["message"]
                self.assertIn("only such a model can be exported", refused)
        self.export(model, "--gguf", file)
        metadata = Gguf(file).metadata
        pieces = [line.split("\t") for line in (model / "tokenizer.vocab").read_text().splitlines()]
        self.assertEqual(metadata["tokenizer.ggml.model"], "llama")
        self.assertEqual(metadata["tokenizer.ggml.tokens"][:400], [piece for piece, _ in pieces])
        self.assertEqual(metadata["tokenizer.ggml.scores"][:400], [float(score) for _, score in pieces])
        self.assertEqual(metadata["tokenizer.ggml.token_type"], [2, 3, 3] + [6] * 256 + [1] * 141 + [5] * 120)
        texts = ["In the beginning God created the heaven", "caf\u00e9 \u2603 7"]
        ids = [list(map(int, subprocess.run(["spm_encode", f"--model={model}/tokenizer.model", "--output_format=id"], input=text, check=True,
                                            capture_output=True, text=True).stdout.split())) for text in texts]
        found = self.ask_llama_cpp(file, texts, [])
        self.assertEqual((found["tokens"], found["bos"], found["eos"]), (ids, 1, 2))

    def test_what_is_wrong_is_named(self):
        model, file = self.folder / "llama/model", self.folder / "wrong.gguf"
        wrong = lambda *argv: self.export(*argv, status=2)["error"]["message"]  # noqa: E731
        self.assertIn("type 'q4': want f32, f16, bf16 or q8_0", wrong(model, "--gguf", file, "--type", "q4"))
        self.assertIn("not a folder; want one with config.json", wrong(self.folder / "no", "--gguf", file))
        self.assertIn("a folder; --gguf wants the name of a file", wrong(model, "--gguf", self.folder))
        other = self.folder / "other"
        shutil.copytree(model, other)
        weights = bytearray((other / "model.safetensors").read_bytes())
        weights[-4:] = struct.pack("<f", math.nan)
        (other / "model.safetensors").write_bytes(weights)
        self.assertRegex(wrong(other, "--gguf", file), r"other.*tensor '.*' has a value that is not finite")
        header, = struct.unpack_from("<Q", weights)
        weights[-4:] = bytes(4)
        weights[8 + header:12 + header] = struct.pack("<f", 1e6)
        (other / "model.safetensors").write_bytes(weights)
        self.assertIn("has a value that f16 cannot hold; export as bf16 or f32", wrong(other, "--gguf", file))
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | {"vocab_size": 500}))
        self.assertIn("want F32, BF16 or F16 of [500,64]", wrong(other, "--gguf", file))
        self.assertFalse(file.exists())


if __name__ == "__main__":
    unittest.main()
