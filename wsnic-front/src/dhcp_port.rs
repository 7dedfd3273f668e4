//! The DHCP server as sessions see it: one per process, one handle per port.
//!
//! Adds to [`crate::dhcp`] what that must not have: the clock, the lease file and the log.

use crate::dhcp::{
    Answers, Config, Event, Lease, LeaseFile, LeaseFileError as FileError, OpenedLeases, PortKey,
    Server,
};
use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::Level;
use wsnic_os::log_limit::LogLimit;
use wsnic_proto::settings::{Dhcp as Options, Nat, Network};
use wsnic_proto::{MacAddr, Plan};

/// The lease file cannot be used.
pub type LeaseFileError = FileError;

/// Leases read, file open: what is made while files can still be opened.
pub struct OpenedDhcp {
    options: Options,
    plan: Plan,
    has_nat: bool,
    file: Option<LeaseFile>,
    leases: Vec<Lease>,
}

impl OpenedDhcp {
    /// Opens the lease file, if one is configured.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(network: &Network) -> Result<OpenedDhcp, LeaseFileError> {
        let (file, leases) = match &network.dhcp.lease_file {
            Some(path) => {
                let OpenedLeases { file, leases, warnings } = LeaseFile::open(path, network.plan)?;
                for warning in warnings {
                    tracing::warn!(file = %path.display(), "{warning}");
                }
                (Some(file), leases)
            }
            None => (None, Vec::new()),
        };
        Ok(OpenedDhcp { file, leases, ..OpenedDhcp::of_room(network, network.plan) })
    }

    /// For one room of a network.
    pub fn of_room(network: &Network, plan: Plan) -> OpenedDhcp {
        let has_nat = network.nat != Nat::Off;
        let (file, leases) = (None, Vec::new());
        OpenedDhcp { options: network.dhcp.clone(), plan, has_nat, file, leases }
    }

    /// The server, once the helper has told the network's MTU and the gateway's address. At its end it
    /// adds what it has answered to `answered`.
    pub fn serve(self, gateway_mac: MacAddr, mtu: u16, answered: Rc<Cell<Answers>>) -> Dhcp {
        let OpenedDhcp { options, plan, has_nat, file, leases } = self;
        // Without NAT nothing forwards what guests ask the gateway: none is better than a dead one.
        let gateway = has_nat.then(|| plan.gateway());
        let nameservers = match options.nameservers {
            configured if configured.is_empty() => gateway.into_iter().collect(),
            configured => configured,
        };
        let config = Config {
            plan,
            gateway_mac,
            mtu,
            lease_time: options.lease_time,
            domain_name: options.domain_name,
            nameservers,
        };
        let server = Server::new(config, leases);
        Dhcp { server, file, ports: 0, broken: None, answered }
    }
}

/// The server with its lease file.
pub struct Dhcp {
    server: Server,
    file: Option<LeaseFile>,
    /// Ports so far.
    ports: u64,
    /// Why the last lease was not written.
    broken: Option<String>,
    answered: Rc<Cell<Answers>>,
}

/// What there is to know of a network's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DhcpState {
    /// Addresses that are leased or offered.
    pub leases: usize,
    /// Addresses that there are.
    pub addresses: u32,
    /// What was answered since the start.
    pub answers: Answers,
}

impl Dhcp {
    /// Adds how it is at the moment.
    pub fn add_to(&mut self, state: &mut DhcpState) {
        let (leases, addresses) = self.server.leases(unix_seconds());
        state.leases += leases;
        state.addresses += addresses;
        state.answers += self.server.answers();
    }

    /// Why it does not work as it should, and what to do.
    pub fn problems(&mut self) -> Vec<String> {
        let exhausted = self.server.is_exhausted(unix_seconds());
        let exhausted = exhausted.then(|| "no address is left, use a larger subnet".to_owned());
        let broken = self.broken.as_ref();
        let broken =
            broken.map(|why| format!("cannot write the lease file (dhcp_lease_file): {why}"));
        exhausted.into_iter().chain(broken).collect()
    }
}

impl Drop for Dhcp {
    /// Until here a power cut can take the last leases; the end of the process cannot.
    fn drop(&mut self) {
        let mut answered = self.answered.get();
        answered += self.server.answers();
        self.answered.set(answered);
        if let Some(Err(error)) = self.file.as_ref().map(LeaseFile::sync) {
            tracing::error!(%error, "the lease file may not be on the disk");
        }
    }
}

/// A session's access to the server; its leases end some time after it is dropped.
pub struct DhcpPort {
    dhcp: Rc<RefCell<Dhcp>>,
    key: PortKey,
    log: Rc<LogLimit>,
}

impl DhcpPort {
    /// For a new session.
    pub fn open(dhcp: &Rc<RefCell<Dhcp>>, log: &Rc<LogLimit>) -> DhcpPort {
        let mut server = dhcp.borrow_mut();
        server.ports += 1;
        DhcpPort { dhcp: Rc::clone(dhcp), key: PortKey(server.ports), log: Rc::clone(log) }
    }

    /// Whether the guest may use this address: false if it is another's.
    pub fn may_use(&self, mac: MacAddr, address: Ipv4Addr) -> bool {
        self.dhcp.borrow_mut().server.may_use(unix_seconds(), self.key, mac, address)
    }

    /// The guest uses this address, which it may: others are not given it, and its lease goes on.
    pub fn used(&self, mac: MacAddr, address: Ipv4Addr) {
        self.dhcp.borrow_mut().server.used(unix_seconds(), self.key, mac, address);
    }

    /// The frame that answers a guest's DHCP frame, if it deserves one, and the address that the guest
    /// has by it.
    pub fn answer(&self, frame: &[u8]) -> (Option<Vec<u8>>, Option<(MacAddr, Ipv4Addr)>) {
        let mut dhcp = self.dhcp.borrow_mut();
        let outcome = dhcp.server.handle(unix_seconds(), self.key, frame);
        if let (Some(lease), Some(file)) = (outcome.lease, &mut dhcp.file) {
            let stored = file.store(&lease);
            dhcp.broken = stored.as_ref().err().map(ToString::to_string);
            if let Err(error) = stored
                && self.log.allows()
            {
                tracing::error!(%error, address = %lease.address, "cannot write the lease file");
            }
        }
        let leased = match outcome.event {
            Some(Event::Leased { mac, address, .. } | Event::Renewed { mac, address }) => {
                Some((mac, address))
            }
            _ => None,
        };
        if let Some(event) = outcome.event {
            match event {
                Event::Exhausted { .. } if self.log.allows() => tracing::warn!("{event}"),
                Event::Leased { .. } if self.log.allows_at(Level::INFO) => {
                    tracing::info!("{event}");
                }
                Event::Exhausted { .. } | Event::Leased { .. } => {}
                _ if self.log.allows_at(Level::DEBUG) => tracing::debug!("{event}"),
                _ => {}
            }
        }
        (outcome.reply, leased)
    }
}

impl Drop for DhcpPort {
    fn drop(&mut self) {
        self.dhcp.borrow_mut().server.port_closed(unix_seconds(), self.key);
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
