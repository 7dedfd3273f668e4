//! The Internet checksum (RFC 1071).
//!
//! Sums are kept unfolded in 64 bits and in the host's byte order: a ones' complement sum does not
//! depend on the order of its bytes as long as all are added, and the result is stored, in the same
//! order (RFC 1071 §2 B). Adding 32 bits at a time to 64 leaves room for 16 GiB, and the compiler
//! makes vector instructions of it.

use std::ops::Range;

/// The sum of `bytes`, padded with a zero byte if their number is odd.
///
/// Parts of a whole can be summed one by one if all but the last have an even length.
#[inline]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    blocks.iter().map(sum_of_block).sum::<u64>() + sum_of_rest(rest)
}

/// Copies as much of `from` as `to` holds, and gives its sum.
#[inline]
pub(super) fn copy_and_sum(from: &[u8], to: &mut [u8]) -> u64 {
    let len = from.len().min(to.len());
    let (from_blocks, from_rest) = from[..len].as_chunks::<BLOCK>();
    let (to_blocks, to_rest) = to[..len].as_chunks_mut::<BLOCK>();
    let mut total = 0;
    for (from, to) in from_blocks.iter().zip(to_blocks) {
        *to = *from;
        total += sum_of_block(from);
    }
    // Word by word: a call to copy so few bytes takes longer.
    let (from_words, from_rest) = from_rest.as_chunks::<4>();
    let (to_words, to_rest) = to_rest.as_chunks_mut::<4>();
    for (from, to) in from_words.iter().zip(to_words) {
        *to = *from;
        total += u64::from(u32::from_ne_bytes(*from));
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        *to = *from;
    }
    total + sum_of_rest(from_rest)
}

/// The sum of a frame's bytes, as [`Run::offer_summed`] takes it.
///
/// [`Run::offer_summed`]: super::Run::offer_summed
#[derive(Debug, Clone, Copy)]
pub struct Sum(u64);

impl Sum {
    /// That of `bytes`.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        Sum(sum(bytes))
    }

    /// The sum of what follows `head`, which has an even length and is the start of what was summed.
    #[inline]
    pub(super) fn behind(self, head: &[u8]) -> u64 {
        self.0 + u64::from(!fold(sum(head)))
    }
}

impl PartialEq for Sum {
    /// Whether checksums made of them are equal.
    fn eq(&self, other: &Sum) -> bool {
        fold(self.0) == fold(other.0)
    }
}

impl Eq for Sum {}

/// XORs `bytes` with `mask` over and over (RFC 6455 §5.3), and gives the sum of what they are then:
/// one pass costs half of what two do.
#[inline]
pub fn unmask(bytes: &mut [u8], mask: [u8; 4]) -> Sum {
    let len = bytes.len();
    Sum(unmask_to(bytes, 0..len, 0, mask))
}

/// The same for a part of `bytes`, which is moved to where `to` begins, that is not behind it.
#[inline]
pub(super) fn unmask_to(bytes: &mut [u8], from: Range<usize>, to: usize, mask: [u8; 4]) -> u64 {
    let (len, shift) = (from.len(), from.start - to);
    let bytes = &mut bytes[to..from.end];
    let (mut at, mut total) = (0, 0);
    total += unmask_tiles::<BLOCK, 8>(bytes, &mut at, shift, mask);
    total += unmask_tiles::<16, 2>(bytes, &mut at, shift, mask);
    while let Some(word) = bytes[at + shift..].first_chunk::<4>() {
        let plain = xored(*word, mask);
        total += u64::from(u32::from_ne_bytes(plain));
        bytes[at..at + 4].copy_from_slice(&plain);
        at += 4;
    }
    for (offset, mask) in (at..len).zip(mask) {
        bytes[offset] = bytes[offset + shift] ^ mask;
    }
    total + sum_of_rest(&bytes[at..len])
}

/// Does that work from `at` on, as long as there are `N` bytes, 8 for each lane. Written so that the
/// compiler makes vector instructions of it, with a sum in each lane.
#[inline]
fn unmask_tiles<const N: usize, const LANES: usize>(
    bytes: &mut [u8],
    at: &mut usize,
    shift: usize,
    mask: [u8; 4],
) -> u64 {
    const { assert!(N == 8 * LANES) };
    let wide = u64::from(u32::from_ne_bytes(mask)) * 0x1_0000_0001;
    let mut sums = [0; LANES];
    // What is read is never behind what was written.
    while let Some(tile) = bytes[*at + shift..].first_chunk::<N>() {
        let mut plain = [0; N];
        let ((from, _), (to, _)) = (tile.as_chunks::<8>(), plain.as_chunks_mut::<8>());
        for ((from, to), sum) in from.iter().zip(to).zip(&mut sums) {
            let word = u64::from_ne_bytes(*from) ^ wide;
            *to = word.to_ne_bytes();
            *sum += (word & 0xffff_ffff) + (word >> 32);
        }
        if let Some(place) = bytes[*at..].first_chunk_mut() {
            *place = plain;
        }
        *at += N;
    }
    sums.iter().sum()
}

/// The first bytes of what `mask` is upon, zeros behind its end.
#[inline]
pub(super) fn unmasked<const N: usize>(bytes: &[u8], mask: [u8; 4]) -> [u8; N] {
    match bytes.first_chunk::<N>() {
        Some(head) => xored(*head, mask),
        None => {
            let mut head = [0; N];
            head[..bytes.len()].copy_from_slice(bytes);
            let mut head = xored(head, mask);
            head[bytes.len()..].fill(0);
            head
        }
    }
}

/// Of known length, which makes vector instructions of it.
#[inline]
fn xored<const N: usize>(mut bytes: [u8; N], mask: [u8; 4]) -> [u8; N] {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    bytes
}

/// What a number in network byte order adds to a sum.
#[inline]
pub(super) fn of(number: u16) -> u64 {
    u64::from(number.to_be())
}

/// What takes a number in network byte order away from a sum: ones' complement has no other way.
#[inline]
pub(super) fn without(number: u16) -> u64 {
    u64::from(!number.to_be())
}

/// The sum as 16 bits, as they stand in a packet: how an unfinished checksum is handed on.
#[inline]
pub(super) fn folded(sum: u64) -> [u8; 2] {
    fold(sum).to_ne_bytes()
}

/// The checksum as it stands in a packet.
#[inline]
pub(super) fn finished(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// The checksum for where 0 means that there is none (RFC 768): then it is 0xffff, which is equal.
#[inline]
pub(super) fn finished_not_zero(sum: u64) -> [u8; 2] {
    match finished(sum) {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    }
}

/// True if the sum of what was sent, its checksum with it, is right.
#[inline]
pub(super) fn is_right(sum: u64) -> bool {
    fold(sum) == 0xffff
}

/// Four vector registers of x86-64's baseline.
const BLOCK: usize = 64;

#[inline]
fn sum_of_block(block: &[u8; BLOCK]) -> u64 {
    let (words, _) = block.as_chunks::<4>();
    sum_of_words(words)
}

#[inline]
fn sum_of_rest(rest: &[u8]) -> u64 {
    let (words, rest) = rest.as_chunks::<4>();
    let last = match *rest {
        [a, b, c] => [a, b, c, 0],
        [a, b] => [a, b, 0, 0],
        [a] => [a, 0, 0, 0],
        _ => [0; 4],
    };
    sum_of_words(words) + u64::from(u32::from_ne_bytes(last))
}

#[inline]
fn sum_of_words(words: &[[u8; 4]]) -> u64 {
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // At most 0x1fffe by now, so that the carry is the last one.
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §1, by the book.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(folded(sum(&bytes)), [0xdd, 0xf2]);
        assert_eq!(finished(sum(&bytes)), [0x22, 0x0d]);
    }

    #[test]
    fn all_carries_are_added() {
        assert_eq!(fold(0), 0);
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0xffff_ffff_0001_ffff), 1);
        assert_eq!(finished(sum(&[0xff; 65_536])), [0, 0]);
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_ffff_where_zero_means_none() {
        assert_eq!(finished_not_zero(sum(&[0xff, 0xff])), [0xff, 0xff]);
        assert_eq!(finished_not_zero(sum(&[0xff, 0xfe])), [0, 1]);
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_book_at_every_length_and_in_parts(
            bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..300, taken: u16, mask: [u8; 4],
        ) {
            let expected = reference(&bytes).to_be_bytes();
            prop_assert_eq!(finished(sum(&bytes)), expected);
            let mut masked: Vec<u8> =
                bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            let mut moved = [&vec![0; cut][..], &masked].concat();
            let end = moved.len();
            let sum_of_moved = unmask_to(&mut moved, cut..end, 0, mask);
            prop_assert_eq!(finished(sum_of_moved), expected);
            prop_assert_eq!(&moved[..bytes.len()], &bytes);
            prop_assert_eq!(super::unmasked::<128>(&masked, mask)[..bytes.len().min(128)].to_vec(), bytes[..bytes.len().min(128)].to_vec());
            let unmasked = unmask(&mut masked, mask);
            prop_assert_eq!(finished(unmasked.0), expected);
            prop_assert_eq!(&masked, &bytes);
            let (head, tail) = bytes.split_at((2 * cut).min(bytes.len() & !1));
            // Ones' complement has two zeros.
            let is_zero = |sum: u64| fold(sum).is_multiple_of(0xffff);
            let behind = unmasked.behind(head);
            prop_assert!(fold(behind) == fold(sum(tail)) || is_zero(behind) && is_zero(sum(tail)));
            let mut copy = vec![0; bytes.len()];
            prop_assert_eq!(finished(copy_and_sum(&bytes, &mut copy)), expected);
            prop_assert_eq!(&copy, &bytes);
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len()));
            prop_assert_eq!(finished(sum(head) + sum(tail)), expected);
            let whole = [&bytes[..], &expected].concat();
            if bytes.len() % 2 == 0 {
                prop_assert!(is_right(sum(&whole)));
            }
            let there_and_back = fold(sum(&bytes) + of(taken) + without(taken));
            prop_assert_eq!(there_and_back % 0xffff, fold(sum(&bytes)) % 0xffff);
        }
    }
}
