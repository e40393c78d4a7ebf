"""A proxy between Kafka clients and brokers that can do harm to single requests.

It understands the framing of Kafka's protocol and no more: the length, and in a request the kind
(ApiKey), the correlation id that its answer will carry, and the client's id, which is the worker's
kafka.instance. So a Fault is for one kind of request of one worker. The brokers advertise the
proxy's ports to clients that come by way of it (broker.py, proxied), so nothing is rewritten.

    proxy = Proxy(cluster.nodes)
    fault = proxy.add("cut_after", END_TXN, client="worker-a")

All runs in one thread of its own; faults may be added and read from any.
"""

import asyncio
import collections
import struct
import threading

PRODUCE, FETCH, METADATA, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 3, 8, 9, 10
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 11, 12, 13, 14
INIT_PRODUCER_ID, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 22, 24, 25, 26, 28
ANY = None

Frame = collections.namedtuple("Frame", "data api correlation client")


class Fault:
    """What to do with requests of a kind, from the nth that matches on, so many times.

    cut        the connection is closed, the request is not passed on
    cut_after  it is passed on, and the connection closed before anything comes back
    lose       it is not passed on; the connection stays
    mute       it is passed on, and its answer is not
    delay      it is held for so many seconds, and what comes after it on this connection with it
    late       it is held and the connection is cut; it is delivered after all, by a connection of
               its own, just before the client's request `before`: (kind, how many of these from now)

    ends_with: a kind of request of the client that ends the fault, once it has struck
    """

    def __init__(self, do, api=ANY, client=ANY, nth=1, times=1, seconds=0, before=None,
                 ends_with=None):
        self.do, self.api, self.client, self.seconds = do, api, client, seconds
        self.skip, self.left, self.seen = nth - 1, times, 0
        self.before, self.ends_with = before, ends_with
        self.held = None      # late: (port of the broker, frame)
        self.answer = None    # late: what the broker said to it in the end

    def takes(self, frame):
        if self.seen and frame.api == self.ends_with and self.client in (ANY, frame.client):
            self.left = 0
        if self.left <= 0 or self.api not in (ANY, frame.api) or self.client not in (ANY, frame.client):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.left -= 1
        self.seen += 1
        return True

    def is_due(self, frame):
        """late: is it to be delivered now, before frame?"""
        if not self.held or frame.client != self.held[1].client or frame.api != self.before[0]:
            return False
        self.before = (self.before[0], self.before[1] - 1)
        return self.before[1] <= 0


def parse(data):
    """A request's frame, its length included."""
    api, _, correlation, size = struct.unpack_from(">hhih", data, 4)
    return Frame(data, api, correlation, data[14:14 + size].decode(errors="replace") if size > 0 else "")


class Link:
    """A client's connection and ours to the broker."""

    def __init__(self, client, broker, port):
        self.client, self.broker, self.port = client, broker, port
        self.name = None      # the client's id
        self.muted = set()    # correlation ids whose answers are kept

    def close(self):
        for writer in (self.client, self.broker):
            writer.transport.abort()


class Proxy:
    def __init__(self, nodes):
        self.address = ",".join(f"127.0.0.1:{node.front}" for node in nodes)
        self.faults = []
        self.links = set()
        self.seen = collections.Counter()  # (client, kind) -> requests
        self.servers = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        for node in nodes:
            self._call(self._listen(node.front, node.behind))

    def add(self, do, api=ANY, **more):
        fault = Fault(do, api, **more)
        self.faults.append(fault)
        return fault

    def clear(self):
        """No more harm. What is held for later stays held for ever."""
        self.faults = []

    def cut(self, client=ANY, port=ANY):
        """Closes the connections of one client, or to one broker (its `behind`), or all; how many."""
        async def close():
            chosen = [link for link in self.links
                      if client in (ANY, link.name) and port in (ANY, link.port)]
            for link in chosen:
                link.close()
            return len(chosen)
        return self._call(close())

    def close(self):
        async def end():
            for server in self.servers:
                server.close()
            for link in list(self.links):
                link.close()
        self._call(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    # ---- in the thread ----

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _listen(self, front, behind):
        async def accept(reader, writer):
            await self._serve(behind, reader, writer)
        self.servers.append(await asyncio.start_server(accept, "127.0.0.1", front))

    async def _serve(self, port, reader, writer):
        try:
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, broker_writer, port)
        self.links.add(link)
        pumps = [asyncio.ensure_future(self._requests(link, reader)),
                 asyncio.ensure_future(self._answers(link, broker_reader))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        link.close()
        await asyncio.wait(pumps)
        self.links.discard(link)

    async def _requests(self, link, reader):
        try:
            while True:
                frame = parse(await self._frame(reader))
                link.name = frame.client or link.name
                self.seen[frame.client, frame.api] += 1
                if not await self._judge(link, frame):
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass

    async def _answers(self, link, reader):
        try:
            while True:
                data = await self._frame(reader)
                correlation = struct.unpack_from(">i", data, 4)[0]
                if correlation in link.muted:
                    link.muted.discard(correlation)
                    continue
                link.client.write(data)
                await link.client.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass

    @staticmethod
    async def _frame(reader):
        head = await reader.readexactly(4)
        return head + await reader.readexactly(int.from_bytes(head, "big"))

    async def _judge(self, link, frame):
        """Passes the request on, or not; false: cut the connection."""
        for late in [f for f in self.faults if f.do == "late" and f.is_due(frame)]:
            await self._deliver(late)
        fault = next((f for f in list(self.faults) if f.takes(frame)), None)
        if fault is None:
            return await self._pass(link, frame)
        return await getattr(self, f"_{fault.do}")(link, frame, fault)

    async def _pass(self, link, frame, _=None):
        link.broker.write(frame.data)
        await link.broker.drain()
        return True

    async def _cut(self, _link, _frame, _fault):
        return False

    async def _cut_after(self, link, frame, _):
        link.muted.add(frame.correlation)
        await self._pass(link, frame)
        await asyncio.sleep(0.05)
        return False

    async def _lose(self, _link, _frame, _fault):
        return True

    async def _mute(self, link, frame, _):
        link.muted.add(frame.correlation)
        return await self._pass(link, frame)

    async def _delay(self, link, frame, fault):
        await asyncio.sleep(fault.seconds)
        return await self._pass(link, frame)

    async def _late(self, link, frame, fault):
        fault.held = (link.port, frame)
        return False

    async def _deliver(self, fault):
        """The held request arrives now; what it caused has happened when this returns."""
        port, frame = fault.held
        fault.held = None
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(frame.data)
        fault.answer = await asyncio.wait_for(self._frame(reader), 10)
        writer.close()
