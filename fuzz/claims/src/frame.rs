//! What a guest may send, against the rules that wsnic-proto/src/frame.rs states in words.

use crate::tape::Tape;
use wsnic_proto::frame::{FramePolicy, max_frame_len};
use wsnic_proto::{Frame, FrameError, MacAddr};

/// A frame passes exactly if it breaks no rule; the error names a rule that it breaks; the parts of
/// a frame are the bytes at their places; no DHCP datagram is overlooked.
///
/// Input: a byte for `allow_vlan`, two for the MTU, then the frame.
pub fn frame(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let allow_vlan = tape.byte() & 1 != 0;
    let mtu = tape.short();
    let frame = tape.rest();
    let policy = FramePolicy { max_len: max_frame_len(mtu), gateway_mac: GATEWAY, allow_vlan };

    let broken = broken_rules(frame, usize::from(mtu) + 14 + 4, allow_vlan);
    match policy.check(frame) {
        Ok(taken) => {
            assert_eq!(broken, []);
            assert_eq!(taken.bytes(), frame);
        }
        Err(rule) => assert!(broken.contains(&rule), "{rule:?} is not among {broken:?}"),
    }
    match Frame::new(frame) {
        Some(whole) => parts(frame, whole),
        None => assert!(frame.len() < 14),
    }
}

const GATEWAY: MacAddr = MacAddr([2, 1, 2, 3, 4, 5]);

fn broken_rules(frame: &[u8], longest: usize, allow_vlan: bool) -> Vec<FrameError> {
    if frame.len() < 14 {
        return vec![FrameError::TooShort];
    }
    let (destination, source, kind) = (&frame[..6], &frame[6..12], &frame[12..14]);
    let bridges = destination.starts_with(&[0x01, 0x80, 0xc2, 0, 0]) && destination[5] <= 0x0f;
    let tagged = kind == [0x81, 0x00] || kind == [0x88, 0xa8];
    let rules = [
        (frame.len() > longest, FrameError::TooLong),
        (source[0] % 2 == 1 || source == [0; 6], FrameError::BadSource),
        (source == GATEWAY.0, FrameError::GatewaySource),
        (bridges, FrameError::BridgeProtocol),
        (tagged && !allow_vlan, FrameError::Vlan),
    ];
    rules.into_iter().filter_map(|(broken, rule)| broken.then_some(rule)).collect()
}

fn parts(bytes: &[u8], frame: Frame<'_>) {
    assert_eq!(frame.bytes(), bytes);
    assert_eq!(frame.destination().0, bytes[..6]);
    assert_eq!(frame.source().0, bytes[6..12]);
    assert_eq!(frame.ethertype(), u16::from(bytes[12]) * 256 + u16::from(bytes[13]));
    assert_eq!(frame.payload(), &bytes[14..]);
    let (to_server, to_client) = (frame.is_to_dhcp_server(), frame.is_to_dhcp_client());
    match udp_destination(bytes) {
        Some(port) => assert_eq!((to_server, to_client), (port == 67, port == 68)),
        // A header shorter than IPv4's is no packet; nobody on the bridge takes it for one.
        None if bytes.get(14).is_some_and(|byte| byte & 0x0f < 5) => {}
        None => assert!(!to_server && !to_client),
    }
}

/// Destination port of an untagged IPv4 UDP datagram, or of its first fragment.
fn udp_destination(bytes: &[u8]) -> Option<u16> {
    let packet = bytes.strip_prefix(&bytes[..12])?.strip_prefix(&[0x08, 0x00])?;
    let first = *packet.first()?;
    let header = usize::from(first % 16) * 4;
    if first / 16 != 4 || header < 20 || packet.len() < header + 4 {
        return None;
    }
    let fragment_offset = (u16::from(packet[6]) * 256 + u16::from(packet[7])) % 0x2000;
    let ports = &packet[header..];
    (packet[9] == 17 && fragment_offset == 0)
        .then(|| u16::from(ports[2]) * 256 + u16::from(ports[3]))
}
