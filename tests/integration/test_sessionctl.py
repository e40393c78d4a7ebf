"""sessionctl as people and scripts use it: jobs in, results out, an exit code for every end."""

import json
import subprocess

import harness
from harness import Case, OUT, start

READY, FAILED, USAGE, WAITED, NO_BROKER = range(5)


class SessionCtl(Case):
    seconds = 15

    def ctl(self, *args, stdin=None, brokers=None, limit=60):
        """(exit code, the lines it printed, what it said on stderr)"""
        run = subprocess.run(
            [str(OUT / "sessionctl"), args[0], "-b", brokers or self.kafka_address,
             "-s", f"topics.jobs={self.jobs_topic}", "-s", f"topics.results={self.results_topic}",
             "-s", f"topics.dead_letters={self.dlq_topic}", *args[1:]],
            input=stdin, capture_output=True, text=True, timeout=limit * harness.PATIENCE)
        return run.returncode, run.stdout.splitlines(), run.stderr

    def test_start_and_wait(self):
        self.worker()
        env = self.folder / "env"
        env.write_text("# secrets\nTOKEN=abc\n")
        code, lines, said = self.ctl("start", "S1", "--snapshot", "oh-v1", "--server", "v1",
                                     "--env-file", str(env), "--wait", "-o", "json")
        self.assertEqual(code, READY, said)
        event = json.loads(lines[-1])
        self.assertEqual((event["type"], event["session_id"]), ("session-ready", "S1"))
        self.assertEqual(event["server"]["port"], 8000)
        self.assertEqual([box["name"] for box in self.sim.live().values()], [f"{self.group}.S1"])

        code, lines, said = self.ctl("stop", "S1", "--wait", "-o", "json")
        self.assertEqual((code, json.loads(lines[-1])["type"]), (READY, "session-stopped"), said)
        code, lines, said = self.ctl("delete", "S1", "--wait", "-o", "json")
        self.assertEqual((code, json.loads(lines[-1])["type"]), (READY, "session-deleted"), said)
        self.assertEqual(self.sim.live(), {})

    def test_a_failure_is_exit_1(self):
        self.worker()
        code, lines, said = self.ctl("start", "S1", "--snapshot", "sim-dead-server", "--wait")
        self.assertEqual(code, FAILED, said)
        self.assertIn("server_exited", "\n".join(lines))

    def test_twenty_at_a_rate(self):
        self.worker()
        code, lines, said = self.ctl("start", "many", "--snapshot", "any", "--count", "20", "--rate", "20/s",
                                     "--wait", "-o", "json")
        self.assertEqual(code, READY, said)
        self.assertEqual({json.loads(line)["session_id"] for line in lines}, {f"many-{i}" for i in range(1, 21)})
        self.assertEqual(len(self.sim.live()), 20)

    def test_submit_lines(self):
        self.worker()
        lines = "\n".join(json.dumps(start(f"S{i}")) for i in range(3))
        code, out, said = self.ctl("submit", "-", "--wait", "-o", "json", stdin=lines + "\n")
        self.assertEqual((code, len(out)), (READY, 3), said)

    def test_usage_time_out_and_no_broker(self):
        code, _, said = self.ctl("start", "S1", "--no-such-option")
        self.assertEqual(code, USAGE)
        self.assertIn("no-such-option", said)
        code, _, _ = self.ctl("start", "S1", "--snapshot", "any", "--wait", "--wait-seconds", "1")
        self.assertEqual(code, WAITED, "there is no worker")
        code, _, _ = self.ctl("start", "S1", "--snapshot", "any", brokers=f"127.0.0.1:{harness.free_port()}")
        self.assertEqual(code, NO_BROKER)


if __name__ == "__main__":
    harness.unittest.main()
