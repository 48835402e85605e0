# SPDX-License-Identifier: Apache-2.0
# A WebSocket service that echoes, or a client that checks one, over the package `websockets`:
#   peer.py echo PORT        peer.py ask URL
import asyncio
import sys

import websockets.client
import websockets.server


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def serve(port):
    async with websockets.server.serve(echo, "127.0.0.1", port, max_size=None):
        await asyncio.Future()


async def ask(url):
    async with websockets.client.connect(url, max_size=None) as socket:
        assert any(one.name == "permessage-deflate" for one in socket.extensions), "no compression"
        for size in (0, 1, 125, 126, 65535, 65536, 1000000):
            for message in ("\u00e4" * size, bytes(range(256)) * (size // 256 + 1)):
                await socket.send(message)
                assert await socket.recv() == message, f"{size} differs"
        await socket.send(["in ", "three ", "fragments"])
        assert await socket.recv() == "in three fragments"
        await (await socket.ping(b"are you there"))
        for number in range(500):
            await socket.send(str(number))
        for number in range(500):
            assert await socket.recv() == str(number)
        await socket.close(4000, "enough")
        assert (socket.close_code, socket.close_reason) == (4000, "enough"), socket.close_code
    print("all well")


asyncio.run(serve(int(sys.argv[2])) if sys.argv[1] == "echo" else ask(sys.argv[2]))
