//! Random frames in great number from one guest to another and back, compared one by one.
//!
//! Both ends make the same frames from the same seed; the receiver wants each exactly once, unchanged
//! and in the order of sending. The sender keeps fewer frames on the way than the queue of a port
//! holds, so that nothing may be lost.

use crate::frames::{BROADCAST, EXPERIMENTAL, IPV4, IPV6, Mac};
use crate::{Door, Lab, Server};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Frames on the way in one direction: far fewer than a port's queue holds, and no more bytes than
/// two batches of the front-end, so that no queue stands however slowly this end reads.
const WINDOW: u64 = 80;
/// The sender is told of this many at once.
const STEP: u64 = 16;
/// Bytes that are written at once, at most about.
const BATCH: usize = 64 * 1024;
/// Bytes of the longest frame without a tag.
const LONGEST: usize = 1514;
const ONE: Mac = [0x02, 0x50, 0xac, 0, 0, 1];
const OTHER: Mac = [0x02, 0x50, 0xac, 0, 0, 2];

/// What went through.
#[derive(Debug)]
pub struct Report {
    /// Frames, of both directions.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the kernel took for them from the front-end: fewer, where frames were joined.
    pub packets: u64,
    /// How long it took.
    pub time: Duration,
}

/// Sends `frames` frames, half of them in each direction, through a wsnic with this configuration.
///
/// # Errors
/// Which frame was lost, changed, repeated or out of order.
pub fn run(frames: u64, conf: &str, seed: u64) -> Result<Report, String> {
    let mut lab = Lab::new();
    if std::path::Path::new("/proc/sys/net/bridge").exists() {
        // br_netfilter drops broken IP packets on bridges, and cuts off padding.
        for family in ["ip", "ip6", "arp"] {
            lab.srv.set_sysctl(&format!("net/bridge/bridge-nf-call-{family}tables"), "0");
        }
        lab.settle();
    }
    // Random bytes may look like a question to the DHCP server, which would not be sent on.
    let conf = format!("{conf}dhcp_service = disabled\nallow_vlan = yes\nlocks = no\n");
    let server = Server::start(&lab, &conf);
    let (one, other) = (Door::upgraded(&lab).into_stream(), Door::upgraded(&lab).into_stream());
    let (there, back) = (Gate::default(), Gate::default());
    let started = Instant::now();
    let half = frames / 2;
    let there_frames = || Frames::new(seed, ONE, OTHER);
    let back_frames = || Frames::new(seed ^ 0x5555, OTHER, ONE);
    let received: [Result<u64, String>; 2] = std::thread::scope(|scope| {
        scope.spawn(|| send(&one, there_frames(), half, &there));
        scope.spawn(|| send(&other, back_frames(), frames - half, &back));
        let at_other = scope.spawn(|| receive(&other, there_frames(), half, &there));
        let at_one = scope.spawn(|| receive(&one, back_frames(), frames - half, &back));
        [at_other, at_one].map(|end| end.join().expect("a receiver does not panic"))
    });
    let time = started.elapsed();
    let bytes = received.into_iter().sum::<Result<u64, String>>()?;
    let packets = (0..2).map(|port| {
        let path = format!("cat /sys/class/net/wstap{port}/statistics/rx_packets");
        lab.srv.run(&path).trim().parse::<u64>().expect("a number")
    });
    let packets = packets.sum();
    drop((one, other));
    server.stop();
    lab.finish();
    Ok(Report { frames, bytes, packets, time })
}

/// How many frames have arrived; what is beyond the window waits.
#[derive(Default)]
struct Gate {
    arrived: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Waits until a frame of this number may be sent; false if the receiver has given up.
    fn wait(&self, number: u64) -> bool {
        let state = self.arrived.lock().expect("nobody panics with it");
        let wait = |state: &mut (u64, bool)| number >= state.0 + WINDOW && !state.1;
        !self.changed.wait_while(state, wait).expect("nobody panics with it").1
    }

    fn is_open(&self, number: u64) -> bool {
        number < self.arrived.lock().expect("nobody panics with it").0 + WINDOW
    }

    fn advance(&self, arrived: u64) {
        self.arrived.lock().expect("nobody panics with it").0 = arrived;
        self.changed.notify_one();
    }
}

/// Lets the sender end when the receiver has ended.
struct GivesUp<'a>(&'a Gate);

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        self.0.arrived.lock().expect("nobody panics with it").1 = true;
        self.0.changed.notify_one();
    }
}

fn send(mut stream: &TcpStream, mut frames: Frames, count: u64, gate: &Gate) {
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut batch, mut frame) = (Vec::new(), Vec::new());
    for number in 0..count {
        let may_go_on = batch.len() < BATCH && random.below(64) != 0 && gate.is_open(number);
        if !may_go_on {
            // In two pieces, so that reads end inside of messages too.
            let (start, rest) = batch.split_at(random.below(batch.len() + 1));
            // A server that takes no more lets the receiver say what is missing.
            let taken = stream.write_all(start).and_then(|()| stream.write_all(rest));
            batch.clear();
            if taken.is_err() || !gate.wait(number) {
                return;
            }
        }
        frames.next(&mut frame);
        put_message(&mut batch, &frame, (random.next() as u32).to_ne_bytes());
    }
    let _ = stream.write_all(&batch);
}

/// A masked binary message (RFC 6455 §5.2).
fn put_message(out: &mut Vec<u8>, frame: &[u8], mask: [u8; 4]) {
    out.push(0x82);
    match u8::try_from(frame.len()) {
        Ok(len) if len < 126 => out.push(0x80 | len),
        _ => {
            out.push(0x80 | 126);
            out.extend((frame.len() as u16).to_be_bytes());
        }
    }
    out.extend(mask);
    let at = out.len();
    out.extend_from_slice(frame);
    for (byte, mask) in out[at..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn receive(stream: &TcpStream, mut frames: Frames, count: u64, gate: &Gate) -> Result<u64, String> {
    let _gives_up = GivesUp(gate);
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    let (mut frame, mut expected, mut bytes) = (Vec::new(), Vec::new(), 0);
    for number in 0..count {
        loop {
            take_message(&mut stream, &mut frame)
                .map_err(|error| format!("frame {number} does not arrive: {error}"))?;
            // The host may answer what it finds in broadcasts.
            if frame.get(6..12) == Some(&frames.from[..]) {
                break;
            }
        }
        frames.next(&mut expected);
        if frame != expected {
            let at = frame.iter().zip(&expected).take_while(|(a, b)| a == b).count();
            let shown = |frame: &[u8]| format!("{:02x?}", &frame[..frame.len().min(100)]);
            return Err(format!(
                "frame {number} has {} bytes instead of {} and differs from byte {at} on:\n{}\n{}",
                frame.len(),
                expected.len(),
                shown(&frame),
                shown(&expected)
            ));
        }
        bytes += frame.len() as u64;
        if number % STEP == STEP - 1 {
            gate.advance(number + 1);
        }
    }
    Ok(bytes)
}

/// The next binary message of a server, which masks nothing.
fn take_message(stream: &mut impl Read, frame: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let mut len = usize::from(head[1]);
        if len == 126 {
            let mut long = [0; 2];
            stream.read_exact(&mut long)?;
            len = usize::from(u16::from_be_bytes(long));
        }
        frame.resize(len, 0);
        stream.read_exact(frame)?;
        match head[0] {
            0x82 => return Ok(()),
            0x89 => {}
            other => {
                return Err(std::io::Error::other(format!("a message of kind {other:#04x} comes")));
            }
        }
    }
}

/// xorshift64*.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 32) as usize % limit
    }

    fn is_one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }
}

/// All frames from one guest to another, as a seed wants them.
struct Frames {
    random: Random,
    to: Mac,
    from: Mac,
    /// Payloads are cut out of this.
    pool: Vec<u8>,
    flow: Flow,
    /// Segments of the flow that are still to come before something else.
    segments_left: usize,
}

/// A flow of TCP.
struct Flow {
    is_ipv6: bool,
    tag: bool,
    options: bool,
    /// Don't fragment, and whether ids count: with the former alone ids may be changed.
    fragment: u16,
    ids_count: bool,
    id: u16,
    sequence: u32,
    acknowledged: u32,
    ports: u32,
    window: u16,
    /// Payload of a full segment.
    size: usize,
}

impl Frames {
    fn new(seed: u64, from: Mac, to: Mac) -> Frames {
        let mut random = Random(seed | 1);
        let pool = (0..8192 + LONGEST / 8 + 1).flat_map(|_| random.next().to_le_bytes()).collect();
        let flow = Flow::new(&mut random);
        Frames { random, to, from, pool, flow, segments_left: 0 }
    }

    /// The next frame, which replaces what is in `out`.
    fn next(&mut self, out: &mut Vec<u8>) {
        out.clear();
        out.extend(self.to);
        out.extend(self.from);
        if self.segments_left > 0 {
            self.segments_left -= 1;
            return self.segment(out);
        }
        match self.random.below(10) {
            0 => {
                self.flow = Flow::new(&mut self.random);
                self.segments_left = self.random.below(70);
                self.segment(out);
            }
            1 => {
                // The flow goes on behind whatever came between.
                self.segments_left = self.random.below(20);
                self.segment(out);
            }
            2..6 => self.datagram(out),
            _ => self.other(out),
        }
    }

    fn payload(&mut self, out: &mut Vec<u8>, len: usize) {
        let at = self.random.below(65_536);
        out.extend_from_slice(&self.pool[at..at + len]);
    }

    fn segment(&mut self, out: &mut Vec<u8>) {
        const FIN: u8 = 1;
        const PSH: u8 = 8;
        const ACK: u8 = 16;
        let ip_at = self.flow.put_ethertype(out);
        let mut len = self.flow.size;
        let mut flags = ACK;
        let mut broken = false;
        match self.random.below(100) {
            0..3 => len = 1 + self.random.below(len),
            3..5 => flags |= PSH,
            5 => flags |= FIN,
            6 => flags |= 1 << self.random.below(8),
            7 => self.flow.sequence = self.random.next() as u32,
            8 => len = 0,
            9 => self.flow.acknowledged = self.flow.acknowledged.wrapping_add(1448),
            10 => broken = true,
            // With DF the id may be any, and is not kept.
            11 if self.flow.fragment == 0 => self.flow.id = self.random.next() as u16,
            _ => {}
        }
        let options_len = if self.flow.options { 12 } else { 0 };
        let tcp_len = 20 + options_len + len;
        let tcp_at = self.flow.put_ip(out, 6, tcp_len, &mut self.random);
        out.extend(self.flow.ports.to_be_bytes());
        out.extend(self.flow.sequence.to_be_bytes());
        out.extend(self.flow.acknowledged.to_be_bytes());
        out.extend([((20 + options_len) << 2) as u8, flags]);
        out.extend(self.flow.window.to_be_bytes());
        out.extend([0; 4]);
        out.extend(&[1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7][..options_len]);
        self.payload(out, len);
        self.flow.sequence = self.flow.sequence.wrapping_add(len as u32);
        finish(out, self.flow.is_ipv6, ip_at, tcp_at, tcp_at + 16, 6);
        if broken {
            let at = out.len() - 1;
            out[at] ^= 0x40;
        }
        // A card may pad what is shorter than the wire allows.
        if out.len() < 60 && self.random.is_one_in(2) {
            out.resize(60, 0);
        }
    }

    fn datagram(&mut self, out: &mut Vec<u8>) {
        let mut flow = Flow::new(&mut self.random);
        flow.tag = self.random.is_one_in(16);
        let ip_at = flow.put_ethertype(out);
        let headers = ip_at + if flow.is_ipv6 { 40 } else { 20 } + 8;
        let most = LONGEST - (headers - if flow.tag { 4 } else { 0 });
        let len = if self.random.is_one_in(3) { 18 } else { self.random.below(most + 1) };
        let udp_at = flow.put_ip(out, 17, 8 + len, &mut self.random);
        out.extend(flow.ports.to_be_bytes());
        out.extend((8 + len as u16).to_be_bytes());
        out.extend([0; 2]);
        self.payload(out, len);
        if self.random.is_one_in(8) {
            // Wrong, or none.
            out[udp_at + 6] = self.random.next() as u8;
        } else {
            finish(out, flow.is_ipv6, ip_at, udp_at, udp_at + 6, 17);
        }
    }

    /// Anything, some of it with an EtherType that promises what does not follow.
    fn other(&mut self, out: &mut Vec<u8>) {
        const TYPES: [u16; 6] = [EXPERIMENTAL, 0x8137, 100, IPV4, IPV6, 0x0806];
        let mut ethertype = TYPES[self.random.below(TYPES.len())];
        if self.random.is_one_in(16) {
            out[..6].copy_from_slice(&BROADCAST);
            ethertype = EXPERIMENTAL;
        }
        out.extend(ethertype.to_be_bytes());
        let len = match self.random.below(4) {
            0 => self.random.below(50),
            1 => LONGEST - 14,
            _ => self.random.below(LONGEST - 13),
        };
        self.payload(out, len);
    }
}

impl Flow {
    fn new(random: &mut Random) -> Flow {
        const SIZES: [usize; 8] = [1448, 1448, 1448, 1400, 536, 100, 8, 1];
        let (is_ipv6, options) = (random.is_one_in(3), !random.is_one_in(4));
        let most = LONGEST - 14 - if is_ipv6 { 40 } else { 20 } - if options { 32 } else { 20 };
        let size = match random.below(10) {
            0 => 1 + random.below(most),
            1 => most,
            _ => SIZES[random.below(SIZES.len())].min(most),
        };
        let fragment = if random.is_one_in(2) { 0x4000 } else { 0 };
        Flow {
            is_ipv6,
            tag: random.is_one_in(16),
            options,
            fragment,
            ids_count: fragment != 0 || random.is_one_in(2),
            id: random.next() as u16,
            sequence: random.next() as u32,
            acknowledged: random.next() as u32,
            ports: random.next() as u32,
            window: random.next() as u16,
            size,
        }
    }

    /// Returns where the packet begins.
    fn put_ethertype(&self, out: &mut Vec<u8>) -> usize {
        if self.tag {
            out.extend([0x81, 0x00, 0x60, 0x05]);
        }
        out.extend(if self.is_ipv6 { IPV6 } else { IPV4 }.to_be_bytes());
        out.len()
    }

    /// Returns where the next header begins.
    fn put_ip(
        &mut self,
        out: &mut Vec<u8>,
        protocol: u8,
        len: usize,
        random: &mut Random,
    ) -> usize {
        let len = len as u16;
        if self.is_ipv6 {
            out.extend([0x60, 0, 0, 0]);
            out.extend(len.to_be_bytes());
            out.extend([protocol, 64]);
            out.extend([0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
            out.extend([0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        } else {
            let at = out.len();
            out.extend([0x45, 0]);
            out.extend((len + 20).to_be_bytes());
            out.extend(self.id.to_be_bytes());
            out.extend(self.fragment.to_be_bytes());
            out.extend([64, protocol, 0, 0, 10, 1, 2, 3, 10, 1, 2, 4]);
            let sum = finished(sum(&out[at..]));
            out[at + 10..at + 12].copy_from_slice(&sum);
            let step = if self.ids_count { 1 } else { random.next() as u16 };
            self.id = self.id.wrapping_add(step);
        }
        out.len()
    }
}

/// Writes the checksum at `at` of what follows the IP header.
fn finish(out: &mut [u8], is_ipv6: bool, ip_at: usize, from: usize, at: usize, protocol: u8) {
    let addresses = if is_ipv6 { ip_at + 8..ip_at + 40 } else { ip_at + 12..ip_at + 20 };
    let len = out.len() - from;
    let total = sum(&out[addresses]) + u64::from(protocol) + len as u64 + sum(&out[from..]);
    let mut checksum = finished(total);
    if protocol == 17 && checksum == [0, 0] {
        checksum = [0xff; 2];
    }
    out[at..at + 2].copy_from_slice(&checksum);
}

/// RFC 1071, not folded.
fn sum(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks_exact(2);
    let odd = pairs.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    odd + pairs.map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u64>()
}

fn finished(mut sum: u64) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::fault;

    #[test]
    fn the_same_seed_makes_the_same_frames_of_all_kinds() {
        let (mut one, mut other) = (Frames::new(7, ONE, OTHER), Frames::new(7, ONE, OTHER));
        let (mut frame, mut same) = (Vec::new(), Vec::new());
        let (mut right, mut shortest, mut longest) = (0, usize::MAX, 0);
        for _ in 0..10_000 {
            one.next(&mut frame);
            other.next(&mut same);
            assert_eq!(frame, same);
            let is_tcp = frame[12..].starts_with(&[8, 0, 0x45]) && frame.get(23) == Some(&6);
            right += usize::from(is_tcp && fault(&frame).is_none());
            (shortest, longest) = (shortest.min(frame.len()), longest.max(frame.len()));
        }
        assert!(right > 2000, "{right} right segments");
        assert_eq!((shortest, longest), (14, LONGEST + 4));
    }
}
