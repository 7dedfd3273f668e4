//! The frames on a bridge's port, seen by a packet socket (packet(7)).
//!
//! The kernel's super-frames come as they are, with the header of a virtio network card before them
//! (PACKET_VNET_HDR), and are cut as the front-end cuts them: into what the guest sees.

use super::pcapng::Direction;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind,
    getsockopt, recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::{cmsg_space, getsockopt_impl, setsockopt_impl, sockopt_impl};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wsnic_os::watch::watch;
use wsnic_proto::offload::{HEADER_LEN, Segments};

/// Bytes of the longest thing that a port moves: header, Ethernet header, IP packet.
const LONGEST: usize = HEADER_LEN + 14 + 65_535;
/// Bytes that wait to be read; what does not fit is lost to the capture.
const QUEUE: usize = 16 * 1024 * 1024;
/// Where a VLAN tag stands in a frame.
const TAG_AT: usize = 12;
/// The usual tag (IEEE 802.1Q).
const TPID: u16 = 0x8100;

sockopt_impl!(VnetHeader, SetOnly, libc::SOL_PACKET, libc::PACKET_VNET_HDR, bool);
sockopt_impl!(AuxData, SetOnly, libc::SOL_PACKET, libc::PACKET_AUXDATA, bool);
sockopt_impl!(Statistics, GetOnly, libc::SOL_PACKET, libc::PACKET_STATISTICS, libc::tpacket_stats);

/// A port that is looked at.
#[derive(Debug)]
pub struct Port {
    socket: AsyncFd<OwnedFd>,
    index: usize,
    buffer: Vec<u8>,
    /// One frame, cut.
    frame: Vec<u8>,
    lost: u64,
}

impl Port {
    /// Looks at the interface of this name from now on.
    ///
    /// # Errors
    /// `NotFound`: there is none. `PermissionDenied`: CAP_NET_RAW is missing.
    pub fn open(name: &str) -> io::Result<Port> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        let addresses = getifaddrs()?.filter(|found| found.interface_name == name);
        let mut links = addresses.filter_map(|found| found.address?.as_link_addr().copied());
        let link: LinkAddr = links.next().ok_or(io::ErrorKind::NotFound)?;
        bind(socket.as_raw_fd(), &link)?;
        setsockopt(&socket, VnetHeader, &true)?;
        setsockopt(&socket, AuxData, &true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        // Beyond the limit of the system where that is allowed.
        if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &QUEUE)?;
        }
        let socket = watch(socket, Interest::READABLE)?;
        let (buffer, frame) = (vec![0; LONGEST], vec![0; LONGEST]);
        Ok(Port { socket, index: link.ifindex(), buffer, frame, lost: 0 })
    }

    /// Waits until something may be there.
    ///
    /// # Errors
    /// The socket's.
    ///
    /// # Cancel safety
    /// Nothing is taken.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await.map(drop)
    }

    /// Gives the frames of the next packet to `take`, with their direction and time. False: nothing is
    /// there.
    ///
    /// # Errors
    /// That of `take`; the socket's, such as ENETDOWN when the port is gone.
    pub fn next(
        &mut self,
        mut take: impl FnMut(Direction, SystemTime, &[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let Port { socket, index, buffer, frame, .. } = self;
        let seen = socket.try_io(Interest::READABLE, |socket| receive(socket, buffer));
        let seen = match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            seen => seen?,
        };
        // What came before this socket was bound is of anybody.
        if seen.index != *index {
            return Ok(true);
        }
        let packet = buffer.get(..seen.len).unwrap_or_default();
        let Ok(mut segments) = Segments::new(packet) else {
            // Of a kind that the front-end does not know either; as it is.
            take(seen.direction, seen.time, packet.get(HEADER_LEN..).unwrap_or_default())?;
            return Ok(true);
        };
        while let Some(len) = segments.next_len() {
            frame.resize(len, 0);
            segments.write_next(frame);
            if let Some(tag) = seen.tag {
                frame.splice(TAG_AT..TAG_AT, tag);
            }
            take(seen.direction, seen.time, frame)?;
        }
        Ok(true)
    }

    /// Packets that there was no room for.
    pub fn lost(&mut self) -> u64 {
        // The kernel begins anew with each answer.
        if let Ok(statistics) = getsockopt(self.socket.get_ref(), Statistics) {
            self.lost += u64::from(statistics.tp_drops);
        }
        self.lost
    }
}

/// A packet that lies in a buffer.
struct Seen {
    len: usize,
    index: usize,
    direction: Direction,
    time: SystemTime,
    /// Which the kernel has taken out of it.
    tag: Option<[u8; 4]>,
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Seen> {
    let mut control = cmsg_space!(TimeSpec, libc::tpacket_auxdata);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let (mut time, mut tag) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmTimestampns(stamp) => {
                time = UNIX_EPOCH.checked_add(Duration::from(stamp));
            }
            ControlMessageOwned::Unknown(other)
                if other.cmsg_header.cmsg_level == libc::SOL_PACKET
                    && other.cmsg_header.cmsg_type == libc::PACKET_AUXDATA =>
            {
                tag = tag_in(&other.data_bytes);
            }
            _ => {}
        }
    }
    let address = message.address;
    let is_outgoing = address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
    Ok(Seen {
        len: message.bytes,
        index: address.map_or(0, |from| from.ifindex()),
        direction: if is_outgoing { Direction::ToGuest } else { Direction::FromGuest },
        time: time.unwrap_or_else(SystemTime::now),
        tag,
    })
}

/// The VLAN tag in a struct tpacket_auxdata (linux/if_packet.h): status, lengths and places in 16 bytes,
/// then TCI and TPID.
fn tag_in(auxdata: &[u8]) -> Option<[u8; 4]> {
    let status = u32::from_ne_bytes(*auxdata.first_chunk()?);
    let [.., a, b, c, d] = *auxdata.first_chunk::<20>()?;
    let [tci, tpid] = [[a, b], [c, d]].map(u16::from_ne_bytes);
    let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { tpid } else { TPID };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_the_kernel_took_out_is_found_in_what_it_says_beside() {
        let auxdata = |status: u32, tci: u16, tpid: u16| {
            [&status.to_ne_bytes()[..], &[0; 12], &tci.to_ne_bytes(), &tpid.to_ne_bytes()].concat()
        };
        let (valid, with_tpid) = (libc::TP_STATUS_VLAN_VALID, libc::TP_STATUS_VLAN_TPID_VALID);
        assert_eq!(tag_in(&auxdata(1, 7, 0)), None);
        assert_eq!(tag_in(&auxdata(valid, 7, 0)), Some([0x81, 0, 0, 7]));
        assert_eq!(
            tag_in(&auxdata(valid | with_tpid, 0x2007, 0x88a8)),
            Some([0x88, 0xa8, 0x20, 7])
        );
        assert_eq!(tag_in(&[0xff; 19]), None);
    }
}
