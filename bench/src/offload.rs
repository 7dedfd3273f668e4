//! Cutting and joining TCP over IPv4 for a TAP with offloads, the least that the limit needs.
//!
//! Not wsnic's code on purpose: the limit is to show what can be had, not what wsnic has.

/// Bytes of a virtio_net_hdr (linux/virtio_net.h).
pub const VNET: usize = 10;
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const ETHERNET: usize = 14;
const FIN_PSH: u8 = 0x09;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// Frames that are joined at most: the kernel takes 64 KiB.
pub const MAX_JOINED: usize = 64;

/// Cuts what a TAP gave into frames; `place` makes room for a frame of so many bytes.
pub fn cut(taken: &mut [u8], mut place: impl FnMut(usize, &mut dyn FnMut(&mut [u8]))) {
    let (vnet, frame) = taken.split_at_mut(VNET);
    let number = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
    let (gso_size, csum_start, csum_offset) = (number(4), number(6), number(8));
    if vnet[1] == GSO_NONE {
        if vnet[0] & NEEDS_CSUM != 0 {
            // The field holds the sum of the pseudo header.
            let sum = !fold(sum(&frame[csum_start..]));
            frame[csum_start + csum_offset..][..2].copy_from_slice(&sum.to_be_bytes());
        }
        return place(frame.len(), &mut |room| room.copy_from_slice(frame));
    }
    assert_eq!(vnet[1] & 0x7f, GSO_TCPV4, "only TCP over IPv4 was asked for");
    let headers = csum_start + usize::from(frame[csum_start + 12] >> 4) * 4;
    let (head, payload) = frame.split_at_mut(headers);
    let flags = head[csum_start + 13];
    let (id, seq) = (be16(head, ETHERNET + 4), be32(head, csum_start + 4));
    let pseudo = sum(&head[ETHERNET + 12..ETHERNET + 20]) + 6;
    let segments = payload.len().div_ceil(gso_size).max(1);
    for (index, chunk) in payload.chunks(gso_size).enumerate() {
        let len = headers + chunk.len();
        head[ETHERNET + 2..][..2].copy_from_slice(&((len - ETHERNET) as u16).to_be_bytes());
        head[ETHERNET + 4..][..2].copy_from_slice(&id.wrapping_add(index as u16).to_be_bytes());
        finish_ip(&mut head[ETHERNET..csum_start]);
        let at = seq.wrapping_add((index * gso_size) as u32);
        head[csum_start + 4..][..4].copy_from_slice(&at.to_be_bytes());
        let mut kept = flags;
        if index > 0 {
            kept &= !CWR;
        }
        if index + 1 < segments {
            kept &= !FIN_PSH;
        }
        head[csum_start + 13] = kept;
        head[csum_start + 16..][..2].fill(0);
        let tcp_len = (len - csum_start) as u64;
        let total = pseudo + tcp_len + sum(&head[csum_start..]) + sum(chunk);
        head[csum_start + 16..][..2].copy_from_slice(&(!fold(total)).to_be_bytes());
        place(len, &mut |room| {
            let (to_head, to_payload) = room.split_at_mut(headers);
            to_head.copy_from_slice(head);
            to_payload.copy_from_slice(chunk);
        });
    }
}

/// Frames of one flow in order, to be written as one. Holds places in a buffer, not the bytes.
#[derive(Debug)]
pub struct Run {
    /// virtio_net_hdr and headers of the whole.
    head: [u8; VNET + ETHERNET + 20 + 60],
    headers: usize,
    first_payload: usize,
    next_seq: u32,
    total: usize,
    ended: bool,
    frame: (usize, usize),
    payloads: Vec<(usize, usize)>,
}

impl Run {
    /// Without frames.
    pub fn new() -> Run {
        Run {
            head: [0; VNET + ETHERNET + 20 + 60],
            headers: 0,
            first_payload: 0,
            next_seq: 0,
            total: 0,
            ended: true,
            frame: (0, 0),
            payloads: Vec::with_capacity(MAX_JOINED),
        }
    }

    /// Adds the frame at `at` of `bytes`; false when the run has to be written first.
    pub fn add(&mut self, bytes: &[u8], at: usize, len: usize) -> bool {
        let frame = &bytes[at..at + len];
        let Some(headers) = joinable(frame) else {
            return self.payloads.is_empty() && {
                self.ended = true;
                self.frame = (at, len);
                self.payloads.push((at, len));
                true
            };
        };
        let payload = len - headers;
        let (tcp, psh) = (ETHERNET + 20, frame[47] & PSH != 0);
        if self.payloads.is_empty() {
            self.head[VNET..VNET + headers].copy_from_slice(&frame[..headers]);
            (self.headers, self.first_payload, self.total) = (headers, payload, payload);
            self.frame = (at, len);
        } else {
            let head = &self.head[VNET..];
            // All but length, id, checksums, sequence number and PSH are the same.
            let same = !self.ended
                && headers == self.headers
                && be32(frame, tcp + 4) == self.next_seq
                && payload <= self.first_payload
                && self.payloads.len() < MAX_JOINED
                && headers + self.total + payload <= usize::from(u16::MAX)
                && head[..16] == frame[..16]
                && head[20..24] == frame[20..24]
                && head[26..tcp + 4] == frame[26..tcp + 4]
                && head[tcp + 8..tcp + 13] == frame[tcp + 8..tcp + 13]
                && head[tcp + 14..tcp + 16] == frame[tcp + 14..tcp + 16]
                && head[tcp + 18..headers] == frame[tcp + 18..headers];
            if !same {
                return false;
            }
            self.total += payload;
            self.head[VNET + tcp + 13] |= frame[tcp + 13];
        }
        self.next_seq = be32(frame, tcp + 4).wrapping_add(payload as u32);
        self.ended = psh || payload < self.first_payload;
        self.payloads.push((at + headers, payload));
        true
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// What to write, in [`MAX_JOINED`] parts and one; the run is empty afterwards.
    pub fn take<'a>(&'a mut self, bytes: &'a [u8], mut part: impl FnMut(&'a [u8])) {
        const ALONE: [u8; VNET] = [0; VNET];
        if self.payloads.len() == 1 {
            part(&ALONE);
            part(&bytes[self.frame.0..self.frame.0 + self.frame.1]);
        } else {
            let tcp = ETHERNET + 20;
            let tcp_len = self.headers - tcp + self.total;
            let vnet = &mut self.head[..VNET];
            vnet[..2].copy_from_slice(&[NEEDS_CSUM, GSO_TCPV4]);
            for (at, value) in [(2, self.headers), (4, self.first_payload), (6, tcp), (8, 16)] {
                vnet[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
            }
            let head = &mut self.head[VNET..];
            let total = (self.headers - ETHERNET + self.total) as u16;
            head[ETHERNET + 2..][..2].copy_from_slice(&total.to_be_bytes());
            finish_ip(&mut head[ETHERNET..tcp]);
            let pseudo = fold(sum(&head[ETHERNET + 12..tcp]) + 6 + tcp_len as u64);
            head[tcp + 16..][..2].copy_from_slice(&pseudo.to_be_bytes());
            part(&self.head[..VNET + self.headers]);
            for (at, len) in &self.payloads {
                part(&bytes[*at..at + len]);
            }
        }
        self.payloads.clear();
    }
}

/// Bytes of the headers of a frame that may be joined: TCP over IPv4 with data, no flag but ACK and
/// PSH, and right checksums.
fn joinable(frame: &[u8]) -> Option<usize> {
    if frame.len() < 54 || frame[12..15] != [8, 0, 0x45] || frame[23] != 6 {
        return None;
    }
    let headers = ETHERNET + 20 + usize::from(frame[46] >> 4) * 4;
    let fragment = be16(frame, 20) & 0x3fff;
    let fits = usize::from(be16(frame, 16)) == frame.len() - ETHERNET
        && headers >= 54
        && headers < frame.len();
    if !fits || fragment != 0 || frame[47] & !PSH != 0x10 {
        return None;
    }
    let tcp_len = (frame.len() - ETHERNET - 20) as u64;
    let right = fold(sum(&frame[14..34])) == 0xffff
        && fold(sum(&frame[26..34]) + 6 + tcp_len + sum(&frame[34..])) == 0xffff;
    right.then_some(headers)
}

fn finish_ip(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = !fold(sum(header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The sum of 16-bit words, not folded yet (RFC 1071), as if in big-endian order.
fn sum(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut low = 0_u64;
    let mut high = 0_u64;
    for chunk in chunks {
        let word = u64::from_ne_bytes(*chunk);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let word = u64::from_ne_bytes(last);
    let total = low + high + (word & 0xffff_ffff) + (word >> 32);
    u64::from(u16::from_be(fold(total)))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsnic_tests::frames;

    /// A super-frame as the kernel gives it: 12 bytes of TCP options, checksum left to the reader.
    fn super_frame(payload: &[u8], gso_size: usize) -> Vec<u8> {
        let mut tcp = [0; 32];
        tcp[4..8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        tcp[12] = 8 << 4;
        tcp[13] = 0x18;
        let segment = [&tcp[..], payload].concat();
        let (from, to) = ([192, 168, 86, 1].into(), [192, 168, 86, 2].into());
        let frame = frames::ipv4([2; 6], [4; 6], from, to, 6, &segment);
        let mut vnet = vec![NEEDS_CSUM, GSO_TCPV4];
        for value in [66, gso_size, 34, 16] {
            vnet.extend((value as u16).to_ne_bytes());
        }
        vnet.extend(frame);
        vnet
    }

    fn pieces(mut taken: Vec<u8>) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        cut(&mut taken, |len, fill| {
            let mut room = vec![0; len];
            fill(&mut room);
            found.push(room);
        });
        found
    }

    #[test]
    fn what_was_cut_is_right_and_can_be_joined_again() {
        let payload: Vec<u8> = (0..5001).map(|at| (at * 7) as u8).collect();
        let frames = pieces(super_frame(&payload, 1448));
        assert_eq!(frames.len(), 4);
        assert!(frames.iter().all(|frame| joinable(frame) == Some(66)), "checksums are right");
        let joined: Vec<u8> = frames.iter().flat_map(|frame| frame[66..].to_vec()).collect();
        assert_eq!(joined, payload);

        let bytes = frames.concat();
        let mut run = Run::new();
        let mut at = 0;
        for frame in &frames {
            assert!(run.add(&bytes, at, frame.len()));
            at += frame.len();
        }
        assert!(!run.add(&bytes, 0, frames[0].len()), "a run that has ended takes no more");
        let mut whole = Vec::new();
        run.take(&bytes, |part| whole.extend_from_slice(part));
        assert!(run.is_empty());
        let again = pieces(whole);
        assert_eq!(again.concat(), bytes);
    }

    #[test]
    fn a_frame_with_a_wrong_checksum_goes_alone() {
        let mut frame = pieces(super_frame(&[1; 100], 1448)).remove(0);
        frame[80] ^= 1;
        assert_eq!(joinable(&frame), None);
        let mut run = Run::new();
        assert!(run.add(&frame, 0, frame.len()));
        assert!(!run.add(&frame, 0, frame.len()));
        let mut whole = Vec::new();
        run.take(&frame, |part| whole.extend_from_slice(part));
        assert_eq!(whole, [&[0; VNET][..], &frame].concat());
    }
}
