//! The helper alone, and a peer of it that may say what no front-end says.
#![allow(unsafe_code)]

use crate::server::{is_alive, send};
use crate::{LIMIT, Lab, programs, wait_until};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, sockopt,
};
use nix::sys::time::TimeVal;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use wsnic_proto::codec::{self, MAX_PACKET};
use wsnic_proto::message::{MAGIC, VERSION};
use wsnic_proto::{Generation, MacAddr, PortId, Reply, Request};

/// A running `wsnic-priv`; killed when dropped without being stopped.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    ended: bool,
}

impl Helper {
    /// Starts the helper in the lab's server namespace and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(lab: &Lab, conf: &str) -> Helper {
        let (file, log) = (lab.file("wsnic.conf"), lab.file("wsnic.log"));
        let socket = lab.file("helper.sock");
        std::fs::write(&file, conf).expect("a configuration file can be written");
        let output = File::create(&log).expect("a log file can be made");
        let mut command = Command::new(programs::helper());
        command.arg("-c").arg(&file).arg("--socket").arg(&socket).env("PATH", "/nonexistent");
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("one more handle"))
            .stderr(output);
        let child = lab.srv.spawn(&mut command);
        let helper = Helper { child, socket, log, ended: false };
        wait_until("the helper listens", || Peer::try_connect(&helper.socket).is_some());
        // It listens before it serves.
        drop(Peer::greeted(&helper));
        helper
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Lets every user connect, as far as the file system goes.
    pub fn open_to_all(&self) {
        std::fs::set_permissions(&self.socket, PermissionsExt::from_mode(0o666))
            .expect("the socket is there");
    }

    /// Asks it to end, and checks that it does so cleanly.
    pub fn stop(mut self) {
        send(self.pid(), Signal::SIGTERM);
        wait_until("the helper has ended", || !is_alive(self.pid()));
        let status = self.child.wait().expect("a child can be waited for");
        self.ended = true;
        assert!(status.success(), "the helper ended with {status}:\n{}", self.log());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the helper ----\n{}", self.log());
        }
        if !self.ended {
            send(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// A port that a peer holds.
#[derive(Debug)]
pub struct HeldPort {
    /// Its slot.
    pub id: PortId,
    /// Its generation.
    pub generation: Generation,
    /// The TAP.
    pub tap: OwnedFd,
    /// Bytes of the virtio_net_hdr before each frame, 0 or 10.
    pub header: usize,
    /// IPv4 address of its bridge.
    pub gateway: [u8; 4],
    /// MAC address of its bridge.
    pub gateway_mac: MacAddr,
}

impl HeldPort {
    /// Sends a whole frame to the network.
    ///
    /// # Errors
    /// As write(2).
    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        let packet = [&vec![0; self.header], frame].concat();
        nix::unistd::write(&self.tap, &packet).map(drop)
    }

    /// The next frame for the guest, without its header.
    ///
    /// # Errors
    /// As read(2); EAGAIN when there is none.
    pub fn receive(&self) -> nix::Result<Vec<u8>> {
        let mut packet = vec![0; self.header + 0x1_0000];
        let len = nix::unistd::read(&self.tap, &mut packet)?;
        Ok(packet[self.header..len].to_vec())
    }
}

/// A connection to the helper.
#[derive(Debug)]
pub struct Peer(OwnedFd);

impl AsRawFd for Peer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Peer {
    /// Connects and says nothing.
    pub fn connect(helper: &Helper) -> Peer {
        Peer::try_connect(&helper.socket).expect("the helper listens")
    }

    /// Connects and says hello.
    pub fn greeted(helper: &Helper) -> Peer {
        Peer::greeted_at(&helper.socket)
    }

    /// Connects to the helper that listens at `path` and says hello.
    pub fn greeted_at(path: &Path) -> Peer {
        let peer = Peer::try_connect(path).expect("the helper listens");
        peer.say(&Peer::hello());
        match peer.hear() {
            Some((Reply::Welcome { proto: VERSION, .. }, None)) => peer,
            other => panic!("a hello is answered by a welcome: {other:?}"),
        }
    }

    /// Connects as another user; None if the file system does not let it.
    pub fn connect_as(helper: &Helper, user: libc::uid_t) -> Option<Peer> {
        let connect = || {
            const SAME: libc::uid_t = libc::uid_t::MAX;
            // SAFETY: the call takes numbers only, and changes this thread's user and no other's.
            let status = unsafe { libc::syscall(libc::SYS_setresuid, SAME, user, SAME) };
            assert_eq!(status, 0, "root may become any user");
            Peer::try_connect(&helper.socket)
        };
        std::thread::scope(|scope| scope.spawn(connect).join()).expect("no panic but a failed test")
    }

    fn try_connect(path: &Path) -> Option<Peer> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
            .expect("a socket can be made");
        let limit = TimeVal::new(LIMIT.as_secs() as libc::time_t, 0);
        socket::setsockopt(&fd, sockopt::ReceiveTimeout, &limit).expect("a time limit");
        socket::setsockopt(&fd, sockopt::SendTimeout, &limit).expect("a time limit");
        let address = UnixAddr::new(path).expect("a path that fits");
        socket::connect(fd.as_raw_fd(), &address).ok().map(|()| Peer(fd))
    }

    /// A correct Hello.
    pub fn hello() -> Request {
        Request::Hello { magic: MAGIC, min: VERSION, max: VERSION }
    }

    /// Sends a request; false when the helper does not take it any more.
    pub fn say(&self, request: &Request) -> bool {
        self.send(codec::encode_request(request).as_bytes(), &[])
    }

    /// Sends any packet with any fds; false when the helper does not take it any more.
    pub fn send(&self, packet: &[u8], fds: &[RawFd]) -> bool {
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        let (parts, flags) = ([IoSlice::new(packet)], MsgFlags::MSG_NOSIGNAL);
        socket::sendmsg::<()>(self.0.as_raw_fd(), &parts, control, flags, None).is_ok()
    }

    /// The next reply or event, with its fd; None when the helper has ended the connection.
    ///
    /// # Panics
    /// When nothing comes in time.
    pub fn hear(&self) -> Option<(Reply, Option<OwnedFd>)> {
        let mut bytes = [0; MAX_PACKET];
        let mut control = cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let (socket, flags) = (self.0.as_raw_fd(), MsgFlags::MSG_CMSG_CLOEXEC);
        let message = match socket::recvmsg::<()>(socket, &mut parts, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::ECONNRESET) => return None,
            Err(Errno::EINTR) => return self.hear(),
            Err(error) => panic!("the helper neither answers nor hangs up: {error}"),
        };
        let mut fd = None;
        for part in message.cmsgs().expect("room for one fd") {
            if let ControlMessageOwned::ScmRights(rights) = part {
                // SAFETY: the kernel has just given these fds to this process and to nobody else.
                fd = rights.first().map(|raw| unsafe { OwnedFd::from_raw_fd(*raw) });
            }
        }
        let len = message.bytes;
        (len > 0).then(|| (codec::decode_reply(&bytes[..len]).expect("a reply"), fd))
    }

    /// Opens a port.
    ///
    /// # Panics
    /// When the helper refuses.
    pub fn open(&self) -> HeldPort {
        self.open_by(&Request::Open { req: 7, network: 0 })
    }

    /// Opens a port by this request, which has number 7.
    ///
    /// # Panics
    /// When the helper refuses.
    pub fn open_by(&self, request: &Request) -> HeldPort {
        assert!(self.say(request), "the helper takes a request");
        match self.hear() {
            Some((
                Reply::Opened { req: 7, port, generation, offloads, gateway, gateway_mac, .. },
                Some(tap),
            )) => {
                let header = if offloads == 0 { 0 } else { 10 };
                HeldPort { id: port, generation, tap, header, gateway, gateway_mac }
            }
            other => panic!("an open is answered by a port: {other:?}"),
        }
    }

    /// Binds a port to addresses; 0.0.0.0 is none.
    ///
    /// # Panics
    /// When the helper refuses.
    pub fn bind(&self, port: &HeldPort, mac: MacAddr, address: [u8; 4]) {
        let HeldPort { id, generation, .. } = *port;
        self.say(&Request::Bind { req: 9, port: id, generation, mac, address, given: false });
        let answer = self.hear();
        assert!(matches!(answer, Some((Reply::Done { req: 9 }, None))), "{answer:?}");
    }

    /// Gives a port back and waits until it is deleted.
    pub fn close(&self, port: HeldPort) {
        let HeldPort { id: port, generation, tap, .. } = port;
        self.say(&Request::Close { req: 8, port, generation });
        let answer = self.hear();
        assert!(matches!(answer, Some((Reply::Done { req: 8 }, None))), "{answer:?}");
        drop(tap);
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        socket::shutdown(self.0.as_raw_fd(), socket::Shutdown::Write).expect("it is connected");
    }

    /// Reads until the helper ends the connection.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for_end(&self) {
        let end = Instant::now() + LIMIT;
        while self.hear().is_some() {
            assert!(Instant::now() < end, "the helper does not hang up");
        }
    }
}
