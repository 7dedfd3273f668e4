//! How a frame travels on TCP: as a WebSocket message, or behind its length.
//!
//! The client's end; the limit's two ends are the same. Written for this program: nothing of
//! wsnic's own code is at both ends of what is measured.

/// A way to put frames on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Masked binary messages to the server, unmasked ones from it (RFC 6455 §5.2).
    WebSocket,
    /// Two bytes, big-endian.
    Length,
}

/// Bytes of the longest header that [`Wire::seal`] writes.
pub const MAX_HEADER: usize = 8;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What stands at the start of what was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A frame of this many bytes behind a header of that many.
    Frame { header: usize, len: usize },
    /// Something else, this long.
    Other { len: usize },
    /// A question that [`PONG_MESSAGE`] answers, this long.
    Ping { len: usize },
    /// The server's goodbye.
    Close,
}

impl Wire {
    /// Bytes of the header before a frame.
    pub fn header_len(self, frame: usize) -> usize {
        match self {
            Wire::Length => 2,
            Wire::WebSocket if frame < 126 => 6,
            Wire::WebSocket => 8,
        }
    }

    /// Makes a message of a frame that lies behind room for its header.
    pub fn seal(self, message: &mut [u8], key: [u8; 4]) {
        let header = if self == Wire::Length {
            2
        } else if message.len() < 6 + 126 {
            6
        } else {
            8
        };
        let (head, frame) = message.split_at_mut(header);
        match self {
            Wire::Length => head.copy_from_slice(&(frame.len() as u16).to_be_bytes()),
            Wire::WebSocket => {
                head[0] = 0x80 | BINARY;
                if header == 6 {
                    head[1] = 0x80 | frame.len() as u8;
                } else {
                    head[1] = 0x80 | 126;
                    head[2..4].copy_from_slice(&(frame.len() as u16).to_be_bytes());
                }
                head[header - 4..].copy_from_slice(&key);
                mask(frame, key);
            }
        }
    }

    /// A frame as a message.
    pub fn message(self, frame: &[u8], key: [u8; 4]) -> Vec<u8> {
        let header = self.header_len(frame.len());
        let mut message = vec![0; header];
        message.extend_from_slice(frame);
        self.seal(&mut message, key);
        message
    }

    /// What `bytes` start with; None when it is not complete.
    pub fn next(self, bytes: &[u8]) -> Option<Arrival> {
        let (header, len) = match self {
            Wire::Length => (2, usize::from(u16::from_be_bytes(*bytes.first_chunk()?))),
            Wire::WebSocket => match *bytes.get(1)? {
                126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
                127 => (10, usize::try_from(u64::from_be_bytes(*bytes[2..].first_chunk()?)).ok()?),
                short => (2, usize::from(short)),
            },
        };
        if bytes.len() < header + len {
            return None;
        }
        let opcode = if self == Wire::Length { BINARY } else { bytes[0] & 15 };
        Some(match opcode {
            BINARY => Arrival::Frame { header, len },
            PING => Arrival::Ping { len: header + len },
            CLOSE => Arrival::Close,
            _ => Arrival::Other { len: header + len },
        })
    }
}

/// An empty pong, masked by zeros: also tells the server that the client lives.
pub const PONG_MESSAGE: [u8; 6] = [0x80 | PONG, 0x80, 0, 0, 0, 0];

fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_that_of_the_standard() {
        // RFC 6455 §5.7, a masked "Hello", here as binary.
        let message = Wire::WebSocket.message(b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(message, [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn messages_are_found_one_after_the_other() {
        for (wire, len) in [(Wire::Length, 1514), (Wire::Length, 0)] {
            let message = wire.message(&vec![7; len], [0; 4]);
            assert_eq!(wire.next(&message), Some(Arrival::Frame { header: 2, len }));
            assert_eq!(wire.next(&message[..message.len() - 1]), None);
        }
        let unmasked = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let found = Wire::WebSocket.next(&unmasked);
        assert_eq!(found, Some(Arrival::Frame { header: 4, len: 256 }));
        assert_eq!(Wire::WebSocket.next(&[0x89, 1, 7, 0x82]), Some(Arrival::Ping { len: 3 }));
    }
}
