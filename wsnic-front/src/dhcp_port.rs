//! The DHCP server as sessions see it: one per process, one handle per port.
//!
//! Adds to [`crate::dhcp`] what that must not have: the clock, the lease file and the log.

use crate::dhcp::{
    Config, Event, Lease, LeaseFile, LeaseFileError as FileError, OpenedLeases, PortKey, Server,
};
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};
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

    /// The server, once the helper has told the network's MTU and the gateway's address.
    pub fn serve(self, gateway_mac: MacAddr, mtu: u16) -> Dhcp {
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
        Dhcp { server: Server::new(config, leases), file, ports: 0 }
    }
}

/// The server with its lease file.
pub struct Dhcp {
    server: Server,
    file: Option<LeaseFile>,
    /// Ports so far.
    ports: u64,
}

impl Drop for Dhcp {
    /// Until here a power cut can take the last leases; the end of the process cannot.
    fn drop(&mut self) {
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

    /// Whether the guest may use this address, which it does: false if it is another's.
    pub fn used(&self, mac: MacAddr, address: Ipv4Addr) -> bool {
        self.dhcp.borrow_mut().server.used(unix_seconds(), self.key, mac, address)
    }

    /// The frame that answers a guest's DHCP frame, if it deserves one, and the address that the guest
    /// has by it.
    pub fn answer(&self, frame: &[u8]) -> (Option<Vec<u8>>, Option<(MacAddr, Ipv4Addr)>) {
        let mut dhcp = self.dhcp.borrow_mut();
        let outcome = dhcp.server.handle(unix_seconds(), self.key, frame);
        if let (Some(lease), Some(file)) = (outcome.lease, &mut dhcp.file)
            && let Err(error) = file.store(&lease)
            && self.log.allows()
        {
            tracing::error!(%error, address = %lease.address, "cannot write the lease file");
        }
        let leased = match outcome.event {
            Some(Event::Leased { mac, address, .. } | Event::Renewed { mac, address }) => {
                Some((mac, address))
            }
            _ => None,
        };
        if let Some(event) = outcome.event
            && self.log.allows()
        {
            match event {
                Event::Exhausted { .. } => tracing::warn!("{event}"),
                Event::Leased { .. } => tracing::info!("{event}"),
                _ => tracing::debug!("{event}"),
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
