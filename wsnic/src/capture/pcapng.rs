//! The file: pcapng (draft-ietf-opsawg-pcapng), one section, one Ethernet interface, one block for each
//! frame. Made so that whatever is cut off behind a block is still a good file.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// Tells a reader the byte order.
const MAGIC: u32 = 0x1a2b_3c4d;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;
/// 10⁻⁹ seconds, of if_tsresol.
const NANOSECONDS: u8 = 9;

// Options, each in the block that its name begins with.
const COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Which way a frame went, as the bridge's port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the guest: inbound.
    FromGuest = 1,
    /// To the guest: outbound.
    ToGuest = 2,
}

/// What the file is about.
#[derive(Debug)]
pub struct About<'a> {
    /// For the section: whose frames these are.
    pub comment: &'a str,
    /// The port.
    pub interface: &'a str,
    /// What is at its other end.
    pub description: &'a str,
}

/// Writes a file; every block is handed on as a whole.
#[derive(Debug)]
pub struct Pcapng<W> {
    to: W,
    block: Vec<u8>,
    frames: u64,
}

impl<W: Write> Pcapng<W> {
    /// Writes what stands before the first frame.
    ///
    /// # Errors
    /// The writer's.
    pub fn begin(to: W, about: &About<'_>) -> io::Result<Pcapng<W>> {
        let mut file = Pcapng { to, block: Vec::with_capacity(2048), frames: 0 };
        file.block(SECTION, |block| {
            block.extend(MAGIC.to_le_bytes());
            // Version 1.0, and a section of unknown length.
            block.extend([1, 0, 0, 0]);
            block.extend((-1_i64).to_le_bytes());
            option(block, COMMENT, about.comment.as_bytes());
            option(block, SHB_USERAPPL, concat!("wsnic ", env!("CARGO_PKG_VERSION")).as_bytes());
            end_of_options(block);
        })?;
        file.block(INTERFACE, |block| {
            block.extend(ETHERNET.to_le_bytes());
            // Reserved, and frames of any length.
            block.extend([0; 2 + 4]);
            option(block, IF_NAME, about.interface.as_bytes());
            option(block, IF_DESCRIPTION, about.description.as_bytes());
            option(block, IF_TSRESOL, &[NANOSECONDS]);
            end_of_options(block);
        })?;
        file.flush()?;
        Ok(file)
    }

    /// Writes a frame without FCS.
    ///
    /// # Errors
    /// The writer's.
    pub fn frame(
        &mut self,
        direction: Direction,
        time: SystemTime,
        frame: &[u8],
    ) -> io::Result<()> {
        self.frames += 1;
        self.block(PACKET, |block| {
            block.extend([0; 4]);
            block.extend(timestamp(time));
            let len = (frame.len() as u32).to_le_bytes();
            block.extend([len, len].concat());
            block.extend(frame);
            pad(block);
            option(block, EPB_FLAGS, &(direction as u32).to_le_bytes());
            end_of_options(block);
        })
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Hands on what is here.
    ///
    /// # Errors
    /// The writer's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Writes what stands behind the last frame: how many the kernel had no room for.
    ///
    /// # Errors
    /// The writer's.
    pub fn end(mut self, lost: u64) -> io::Result<()> {
        let received = self.frames + lost;
        self.block(STATISTICS, |block| {
            block.extend([0; 4]);
            block.extend(timestamp(SystemTime::now()));
            option(block, ISB_IFRECV, &received.to_le_bytes());
            option(block, ISB_IFDROP, &lost.to_le_bytes());
            end_of_options(block);
        })?;
        self.flush()
    }

    /// A block of this type, with its length at both ends.
    fn block(&mut self, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.block.clear();
        self.block.extend([kind.to_le_bytes(), [0; 4]].concat());
        fill(&mut self.block);
        let len = (self.block.len() as u32 + 4).to_le_bytes();
        self.block[4..8].copy_from_slice(&len);
        self.block.extend(len);
        self.to.write_all(&self.block)
    }
}

/// The high half stands before the low one.
fn timestamp(time: SystemTime) -> [u8; 8] {
    let since: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = since.as_nanos() as u64;
    let halves = [(nanos >> 32) as u32, nanos as u32].map(u32::to_le_bytes);
    let [[a, b, c, d], [e, f, g, h]] = halves;
    [a, b, c, d, e, f, g, h]
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    block.extend(code.to_le_bytes());
    block.extend((value.len() as u16).to_le_bytes());
    block.extend(value);
    pad(block);
}

fn end_of_options(block: &mut Vec<u8>) {
    option(block, 0, &[]);
}

/// Everything begins at a multiple of 32 bits.
fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and bodies of the blocks of a file, whose lengths must fit at both ends.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let number = |bytes: &[u8]| u32::from_le_bytes(*bytes.first_chunk().unwrap());
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let len = number(&bytes[4..]) as usize;
            assert!(len.is_multiple_of(4));
            let (block, rest) = bytes.split_at(len);
            assert_eq!(number(&block[len - 4..]) as usize, len);
            found.push((number(block), block[8..len - 4].to_vec()));
            bytes = rest;
        }
        found
    }

    #[test]
    fn frames_stand_in_blocks_with_their_time_and_direction() {
        let mut bytes = Vec::new();
        let about = About { comment: "session 7", interface: "wstap0", description: "a guest" };
        let mut file = Pcapng::begin(&mut bytes, &about).unwrap();
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        file.frame(Direction::FromGuest, time, &[0xaa; 61]).unwrap();
        file.frame(Direction::ToGuest, time, &[0xbb; 60]).unwrap();
        assert_eq!(file.frames(), 2);
        file.end(3).unwrap();
        let blocks = blocks(&bytes);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, PACKET, STATISTICS]);
        assert_eq!(blocks[0].1[..4], MAGIC.to_le_bytes());
        assert!(blocks[0].1.windows(9).any(|window| window == b"session 7"));
        let packet = &blocks[2].1;
        let nanos = 1_700_000_000_123_456_789_u64;
        assert_eq!(packet[4..8], ((nanos >> 32) as u32).to_le_bytes());
        assert_eq!(packet[8..12], (nanos as u32).to_le_bytes());
        assert_eq!(packet[12..20], [61, 0, 0, 0, 61, 0, 0, 0]);
        assert_eq!(packet[20..81], [0xaa; 61]);
        assert_eq!(packet[84..], [2, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(blocks[3].1[80..], [2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    }
}
