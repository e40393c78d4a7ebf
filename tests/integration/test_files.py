"""Few open files: calls wait for each other, and no job fails of it; far too few are said at start."""

import signal
import socket
import unittest

from harness import PATIENCE, Case, Worker, free_port, start, until


class Files(Case):
    seconds = 10

    def limited(self, files, **settings):
        """A worker that is not started yet, with so many open files."""
        worker = Worker(self, f"limited-{files}", settings)
        worker.argv = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *worker.argv]
        return worker

    def test_few_files(self):
        worker = self.limited(120)
        self.workers.append(worker)
        self.addCleanup(self.drained, worker)
        worker.start()
        events = self.done(*(start(f"S{i}") for i in range(80)))
        self.assertEqual({e.outcome for e in events}, {"ready"})
        self.assertEqual(worker.log.read_text().count("few open files are allowed"), 1)

    def test_far_too_few_files(self):
        worker = self.limited(80)
        worker.launch()
        self.assertEqual(worker.process.wait(20 * PATIENCE), 1)
        self.assertIn("too few open files are allowed", worker.log.read_text())

    def test_second_signal_after_the_loop(self):
        """A broker that is silent holds the worker at its end: a second TERM ends it even there."""
        with socket.create_server(("127.0.0.1", free_port())) as silent:
            worker = Worker(self, "held", {"kafka.brokers": f"127.0.0.1:{silent.getsockname()[1]}"})
            worker.start(ready=False)
            until(lambda: "worker started" in worker.log.read_text(), 20, "it starts")
            worker.send(signal.SIGTERM)
            until(lambda: "left the group" in worker.log.read_text() or "leave the group" in worker.log.read_text(),
                  20, "the loop ends")
            worker.send(signal.SIGTERM)
            self.assertEqual(worker.process.wait(30 * PATIENCE), 1)


if __name__ == "__main__":
    unittest.main()
