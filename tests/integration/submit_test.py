"""bench/submit in a short form: what a client was told is there after kill -9, and the object has what it promises. No rates."""

import json
import subprocess
import unittest

from cluster import BIN


class Submit(unittest.TestCase):
    def test_what_was_answered_survives_kill_9(self):
        done = subprocess.run([BIN / "bench/submit", "--clients", "16", "--seconds", "1", "--json"], capture_output=True,
                              text=True, timeout=200)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        self.assertGreater(found["submissions"], 0)
        self.assertEqual((found["failed"], found["lost"]), (0, 0))
        self.assertGreaterEqual(found["kept_after_kill_9"], found["submissions"])


if __name__ == "__main__":
    unittest.main()
