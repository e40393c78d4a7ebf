"""Requests of Kafka's protocol that the Python client of Debian 12 cannot make, or not so."""

import socket
import struct

DELETE_RECORDS, FIND_COORDINATOR, OFFSET_COMMIT, OFFSET_FETCH = 21, 10, 8, 9


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def call(address, api, version, body):
    """The answer to a request, after its correlation id."""
    host, port = address.split(",")[0].rsplit(":", 1)
    request = struct.pack(">hhi", api, version, 1) + text("raw") + body
    with socket.create_connection((host, int(port)), 10) as connection, connection.makefile("rb") as answer:
        connection.sendall(struct.pack(">i", len(request)) + request)
        size = struct.unpack(">i", answer.read(4))[0]
        return answer.read(size)[4:]


def delete_records(address, topic, partition, before):
    """The log of the partition begins at `before` from now on."""
    body = struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, partition, before, 10000)
    answer = call(address, DELETE_RECORDS, 0, body)
    error = struct.unpack(">h", answer[-2:])[0]
    if error:
        raise RuntimeError(f"DeleteRecords: error {error}")


def commit_offset(address, group, topic, partition, offset, metadata):
    """As some tool would, while the group is empty."""
    body = (text(group) + struct.pack(">i", -1) + text("") + struct.pack(">qi", -1, 1) + text(topic) +
            struct.pack(">iiq", 1, partition, offset) + text(metadata))
    error = struct.unpack(">h", call(address, OFFSET_COMMIT, 2, body)[-2:])[0]
    if error:
        raise RuntimeError(f"OffsetCommit: error {error}")


def committed(address, group, topic, partition):
    """(offset, metadata) of one partition."""
    body = text(group) + struct.pack(">i", 1) + text(topic) + struct.pack(">ii", 1, partition)
    answer = call(address, OFFSET_FETCH, 1, body)[4:]
    at = 2 + len(topic) + 4  # the topic's name, and how many partitions
    offset, size = struct.unpack(">qh", answer[at + 4:at + 14])
    metadata = answer[at + 14:at + 14 + max(size, 0)]
    error = struct.unpack(">h", answer[-2:])[0]
    if error:
        raise RuntimeError(f"OffsetFetch: error {error}")
    return offset, metadata.decode()


def coordinator(address, group):
    """The number of the node that coordinates the group."""
    answer = call(address, FIND_COORDINATOR, 0, text(group))
    error, node = struct.unpack(">hi", answer[:6])
    if error:
        raise RuntimeError(f"FindCoordinator: error {error}")
    return node
