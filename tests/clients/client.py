"""client.py BUILT URL FRAME [CERTIFICATE]: what ask.mjs does, by the package websockets."""

import asyncio
import ssl
import sys

built, url, frame, *certificate = sys.argv[1:]
sys.path.insert(0, built + "/python")
import websockets  # noqa: E402 (it lies in BUILT)


async def ask():
    context = None
    if url.startswith("wss:"):
        context = ssl.create_default_context(cafile=certificate[0] if certificate else None)
    try:
        async with websockets.connect(url, ssl=context) as socket:
            await socket.send(bytes.fromhex(frame))
            async for message in socket:
                if message[12:14] == b"\x08\x00" and message[23] == 17 and message[37] == 68:
                    return "frame " + message.hex()
            return f"close {socket.close_code}"
    except ssl.SSLCertVerificationError:
        return "close 1006"


print(asyncio.run(ask()))
