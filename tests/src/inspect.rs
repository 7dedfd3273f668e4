//! What is right about every frame that a guest sees or that leaves its network: length and
//! checksums, judged from the RFCs and without wsnic's code.

use crate::frames::{self, IPV4, IPV6, internet_checksum};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Looks at frames that pass, once it is switched on. Shared between the test and what it watches.
#[derive(Debug, Default)]
pub struct Inspection {
    on: AtomicBool,
    frames: AtomicUsize,
    longest: AtomicUsize,
    fault: Mutex<Option<String>>,
}

impl Inspection {
    /// Looks at every frame from now on.
    pub fn start(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    /// A frame passes.
    pub(crate) fn pass(&self, frame: &[u8]) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(frame.len(), Ordering::Relaxed);
        if let Some(fault) = fault(frame) {
            let text = format!("{fault}: {:02x?}", &frame[..frame.len().min(80)]);
            self.fault.lock().expect("no thread panics with it").get_or_insert(text);
        }
    }

    /// How many frames have passed, after making sure that none was longer than `max_len` bytes or
    /// wrong in itself, and that the longest possible was among them.
    ///
    /// # Panics
    /// When one was.
    pub fn assert_right(&self, max_len: usize) -> usize {
        let fault = self.fault.lock().expect("no thread panics with it").clone();
        assert_eq!(fault, None);
        let longest = self.longest.load(Ordering::Relaxed);
        assert_eq!(longest, max_len, "bytes of the longest frame");
        self.frames.load(Ordering::Relaxed)
    }
}

/// What is wrong with the lengths or checksums of a frame.
pub fn fault(frame: &[u8]) -> Option<&'static str> {
    if frame.len() < 14 {
        return Some("shorter than a header");
    }
    let tag = if frames::ethertype(frame) == 0x8100 { 4 } else { 0 };
    let untagged = [&frame[..12], &frame[12 + tag..]].concat();
    let packet = &untagged[14..];
    match frames::ethertype(&untagged) {
        IPV4 => fault_of_ipv4(packet),
        IPV6 => fault_of_ipv6(packet),
        _ => None,
    }
}

fn fault_of_ipv4(packet: &[u8]) -> Option<&'static str> {
    let number = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if packet.len() < 20 || packet.len() < number(2) {
        return Some("shorter than its IPv4 packet");
    }
    let header_len = usize::from(packet[0] & 15) * 4;
    let (header, data) = packet[..number(2)].split_at(header_len);
    if internet_checksum(header) != 0 {
        return Some("wrong checksum of the IPv4 header");
    }
    let is_fragment = number(6) & 0x3fff != 0;
    if is_fragment {
        return None;
    }
    fault_of_transport(packet[9], &packet[12..20], data)
}

fn fault_of_ipv6(packet: &[u8]) -> Option<&'static str> {
    if packet.len() < 40 {
        return Some("shorter than an IPv6 header");
    }
    let len = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    match packet.get(40..40 + len) {
        Some(data) => fault_of_transport(packet[6], &packet[8..40], data),
        None => Some("shorter than its IPv6 packet"),
    }
}

fn fault_of_transport(protocol: u8, addresses: &[u8], data: &[u8]) -> Option<&'static str> {
    let pseudo_header = [addresses, &[0, protocol], &(data.len() as u16).to_be_bytes()].concat();
    let is_right = || internet_checksum(&[&pseudo_header[..], data].concat()) == 0;
    match protocol {
        1 if internet_checksum(data) != 0 => Some("wrong checksum of ICMP"),
        6 if !is_right() => Some("wrong checksum of TCP"),
        17 if data[6..8] == [0, 0] && addresses.len() == 8 => None,
        17 if !is_right() => Some("wrong checksum of UDP"),
        58 if !is_right() => Some("wrong checksum of ICMPv6"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_flipped_bit_is_found() {
        let data = frames::echo_request(1, &[7; 100]);
        let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let frame = frames::ipv4([2; 6], [4; 6], one, other, 1, &data);
        assert_eq!(fault(&frame), None);
        for at in 14..frame.len() {
            let mut wrong = frame.clone();
            wrong[at] ^= 0x10;
            assert!(fault(&wrong).is_some(), "byte {at}");
        }
    }
}
