# Autobahn's wstest (Python 2), with every message played as an Ethernet frame.
#
# The cases expect a server that echoes any message. wsnic takes Ethernet frames and is a switch, so
# the echo is another machine on the bridge, with the address ECHO. Of a message of 14 bytes or more
# the first 14 become the frame's header, so that all lengths stay as they are; before a shorter one
# the header is added. What comes back is put right again. Frames of others are not for the cases.
# All messages are binary: the cases with text are played as binary, too.

import sys

from autobahn.websocket.protocol import WebSocketClientFactory, WebSocketProtocol
from autobahntestsuite import wstest
from autobahntestsuite.fuzzing import FuzzingProtocol

ECHO = b'\x02\x86\xec\x00\x00\x02'
SELF = b'\x02\x86\xec\x00\x00\x01'
EXPERIMENTAL = b'\x88\xb5'
TEXT, BINARY = 1, 2
HEADER = 14
# Seconds for what must happen, where the testsuite gives one: the machine may be busy.
PATIENCE = 15

send_frame = WebSocketProtocol.sendFrame
on_message = FuzzingProtocol.onMessage
kill_after = FuzzingProtocol.killAfter
reset_options = WebSocketClientFactory.resetProtocolOptions


def as_ethernet(self, opcode, payload=b'', fin=True, rsv=0, mask=None, payload_len=None, **rest):
    if opcode in (TEXT, BINARY):
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
            payload_len = None
        replaced = payload[:HEADER] if len(payload) >= HEADER else b''
        self.__dict__.setdefault('played', []).append((replaced, opcode == BINARY))
        payload = ECHO + SELF + EXPERIMENTAL + payload[len(replaced):]
        send_frame(self, BINARY, payload, fin, rsv, mask, payload_len, **rest)
        if opcode == TEXT and self.createStats:
            # Some cases count what they have sent.
            self.txFrameStats[BINARY] -= 1
            self.txFrameStats[TEXT] = self.txFrameStats.get(TEXT, 0) + 1
    else:
        send_frame(self, opcode, payload, fin, rsv, mask, payload_len, **rest)


def from_ethernet(self, message, binary):
    if message[:HEADER] != SELF + ECHO + EXPERIMENTAL:
        return None
    replaced, binary = self.played.pop(0)
    return on_message(self, replaced + message[HEADER:], binary)


def with_patience(self):
    reset_options(self)
    self.openHandshakeTimeout = PATIENCE
    self.closeHandshakeTimeout = PATIENCE
    self.serverConnectionDropTimeout = PATIENCE


WebSocketProtocol.sendFrame = as_ethernet
FuzzingProtocol.onMessage = from_ethernet
FuzzingProtocol.killAfter = lambda self, delay: kill_after(self, max(delay, PATIENCE))
WebSocketClientFactory.resetProtocolOptions = with_patience
sys.argv[0] = 'wstest'
wstest.run()
