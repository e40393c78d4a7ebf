"""What is too large for a topic: dead letters are shortened, batches divided, and nothing stands still."""

import confluent_kafka
from confluent_kafka.admin import AdminClient, ConfigResource

import harness
from harness import Case, start, until

MB = 1_000_000


class Large(Case):
    partitions = 2
    seconds = 15

    def limit(self, topic, n):
        """The topic takes batches of so many bytes from now on."""
        admin = AdminClient({"bootstrap.servers": self.kafka_address})
        wanted = ConfigResource("topic", topic, set_config={"max.message.bytes": str(n)})
        for future in admin.alter_configs([wanted]).values():
            future.result(10)

    def put(self, value, key=None, headers=None, **more):
        """One record into partition 0, however large."""
        faults = []
        producer = confluent_kafka.Producer({"bootstrap.servers": self.kafka_address,
                                             "message.max.bytes": 40 * MB, **more})
        producer.produce(self.jobs_topic, value, key, headers=headers, partition=0, on_delivery=lambda fault, _: faults.append(fault))
        self.assertEqual((producer.flush(30), faults), (0, [None]))

    def letters(self, n):
        """The dead letters, raw, once there are n."""
        found = []

        def enough():
            found.extend(m for m in self.dead.consumer.consume(100, 0.2) if not m.error())
            return len(found) >= n

        until(enough, 30, lambda: f"{len(found)} dead letters")
        return found

    def goes_on(self):
        """Jobs are done, and the records are behind."""
        good = [start(f"good-{i}") for i in range(4)]
        for event in self.done(*good, limit=30):
            self.assertEqual(event.outcome, "ready", event.json)
        self.assert_offsets_at_end()

    def test_headers_and_keys_that_no_dead_letter_takes(self):
        """Each just fits the jobs topic; with what a dead letter adds it is too large without its value."""
        worker = self.worker()
        self.put(b"{}", "headers", [(f"h{i}", b"x" * 4000) for i in range(500)], **{"compression.type": "lz4"})
        self.put(None, b"k" * 1_048_400)
        self.goes_on()
        headers, key = self.letters(2)
        self.assertEqual((headers.key(), headers.value()), (b"headers", b"{}"))
        self.assertEqual(len(key.key()), 1024)
        for letter in headers, key:
            told = dict(letter.headers())
            self.assertEqual(told["session-worker-cut"], b"true")
            self.assertEqual(told["__connect.errors.topic"].decode(), self.jobs_topic)
            self.assertLessEqual(sum(len(n) + len(v or b"") for n, v in letter.headers()
                                     if not n.startswith("__connect.errors.")), 65536 + 30)
        self.assertGreater(len([n for n, _ in headers.headers() if n.startswith("h")]), 10)
        self.assertEqual(worker.metric("kafka_batches_total", result="unknown"), 0)

    def batches_larger_than_their_topic(self, delivery):
        self.settings["kafka.delivery"] = delivery
        self.limit(self.dlq_topic, 100_000)
        for i in range(20):
            self.put(b"x" * 60_000, f"bad-{i}")
        self.worker()
        self.goes_on()
        whole = [m for m in self.letters(20) if len(m.value()) == 60_000]
        self.assertEqual(sorted({m.key().decode() for m in whole}), sorted(f"bad-{i}" for i in range(20)))

    def test_batches_larger_than_their_topic(self):
        self.batches_larger_than_their_topic("exactly_once")

    def test_batches_larger_than_their_topic_at_least_once(self):
        self.batches_larger_than_their_topic("at_least_once")

    def test_a_record_of_17_MB(self):
        self.limit(self.jobs_topic, 30 * MB)
        self.worker()
        self.put(b"x" * (17 * MB + MB // 2), "big")
        self.goes_on()
        letter, = self.letters(1)
        self.assertEqual((letter.key(), len(letter.value())), (b"big", 65536))
        self.assertEqual(dict(letter.headers())["session-worker-cut"], b"true")


if __name__ == "__main__":
    harness.unittest.main()
