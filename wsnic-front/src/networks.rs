//! Networks as sessions see them: which one a client comes into, and what applies there.
//!
//! A network is chosen by the first part of the path, or by the proof; a room by the second part. What
//! the helper is told of a room is a digest of the network's name and that secret.

use crate::auth::Identity;
use crate::dhcp::Answers;
use crate::dhcp_port::{Dhcp, DhcpState, LeaseFileError, OpenedDhcp};
use crate::sessions::Totals;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::rc::{Rc, Weak};
use wsnic_proto::frame::{FramePolicy, max_frame_len};
use wsnic_proto::rooms::RoomKey;
use wsnic_proto::settings::{DhcpService, Network as Options, Settings};
use wsnic_proto::{Cidr, MacAddr, Plan};

/// Bytes of the longest secret of a room.
const MAX_SECRET: usize = 256;

/// One network.
pub struct Network {
    /// Its number in the helper's protocol.
    pub number: u16,
    /// What is configured.
    pub options: Options,
    /// Its DHCP server, until the first guest is there.
    opened: RefCell<Option<OpenedDhcp>>,
    /// The same from then on; it stays.
    own: RefCell<Option<Rc<RefCell<Dhcp>>>>,
    /// The DHCP servers of rooms that have guests, by the gateway's address.
    rooms: RefCell<HashMap<Ipv4Addr, Weak<RefCell<Dhcp>>>>,
    /// What those have answered that are gone.
    answered: Rc<Cell<Answers>>,
}

/// All networks, in the order of their numbers.
pub struct Networks {
    networks: Vec<Rc<Network>>,
    strict: bool,
}

/// Where a client goes.
#[derive(Clone)]
pub struct Choice {
    /// Which network.
    pub network: Rc<Network>,
    /// Which room, if it has rooms.
    pub room: Option<RoomKey>,
}

/// Why a client goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The path leads nowhere.
    Path,
    /// The network is not for this client.
    Forbidden,
}

impl Networks {
    /// Opens the lease files.
    ///
    /// # Errors
    /// One cannot be read or written.
    pub fn open(settings: &Settings) -> Result<Networks, LeaseFileError> {
        let open = |(number, options): (u16, &Options)| {
            let is_own = options.dhcp.service == DhcpService::Builtin && options.rooms.is_none();
            let opened = is_own.then(|| OpenedDhcp::open(options)).transpose()?;
            Ok(Rc::new(Network {
                number,
                options: options.clone(),
                opened: RefCell::new(opened),
                own: RefCell::default(),
                rooms: RefCell::default(),
                answered: Rc::default(),
            }))
        };
        let networks = (0..).zip(settings.networks()).map(open).collect::<Result<_, _>>()?;
        Ok(Networks { networks, strict: settings.server.strict_paths })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Network>> {
        self.networks.iter()
    }

    /// Where the path of a request leads whoever he is.
    ///
    /// # Errors
    /// Nowhere, or where he may not go.
    pub fn choose(&self, target: &str, identity: &Identity) -> Result<Choice, Lost> {
        let path = target.split('?').next().unwrap_or_default();
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let first = parts.next();
        let of_name =
            |name: &str| self.networks.iter().find(|one| one.options.name.as_str() == name);
        let of_path = first.and_then(of_name);
        if of_path.is_none() && first.is_some() && self.strict {
            return Err(Lost::Path);
        }
        let of_proof = match &identity.network {
            Some(name) => Some(of_name(name.as_str()).ok_or(Lost::Forbidden)?),
            None => None,
        };
        let network = match (of_path, of_proof) {
            (Some(wanted), Some(own)) if !Rc::ptr_eq(wanted, own) => return Err(Lost::Forbidden),
            (Some(wanted), None) if wanted.options.private => return Err(Lost::Forbidden),
            (Some(network), _) | (None, Some(network)) => network,
            (None, None) => match self.networks.first() {
                Some(default) if !default.options.private => default,
                _ => return Err(Lost::Forbidden),
            },
        };
        let room = match network.options.rooms {
            None => None,
            Some(_) if of_path.is_none() => return Err(Lost::Path),
            Some(_) => {
                let secret = parts.next().filter(|secret| secret.len() <= MAX_SECRET);
                Some(room_key(network.options.name.as_str(), secret.ok_or(Lost::Path)?))
            }
        };
        Ok(Choice { network: Rc::clone(network), room })
    }
}

impl Network {
    /// How its DHCP servers are, if they are the built-in ones.
    pub fn dhcp_state(&self) -> Option<DhcpState> {
        let mut state = DhcpState { answers: self.answered.get(), ..DhcpState::default() };
        let rooms: Vec<_> = self.rooms.borrow().values().filter_map(Weak::upgrade).collect();
        for server in rooms.iter().chain(&*self.own.borrow()) {
            server.borrow_mut().add_to(&mut state);
        }
        (self.options.dhcp.service == DhcpService::Builtin).then_some(state)
    }

    /// As an operator sees it, whose sessions have moved so much and are in so many rooms.
    pub fn row(&self, totals: Totals, rooms: usize) -> Row<'_> {
        let options = &self.options;
        let dhcp = self.dhcp_state();
        Row {
            name: options.name.as_str(),
            subnet: options.plan.subnet().to_string(),
            gateway: options.rooms.is_none().then(|| options.plan.gateway()),
            mtu: options.mtu,
            private: options.private,
            locks: options.locks,
            isolation: options.isolation,
            max_rooms: options.rooms.map(|rooms| rooms.max),
            rooms: options.rooms.map(|_| rooms),
            dhcp: options.dhcp.service.word(),
            leases: dhcp.as_ref().map(|dhcp| dhcp.leases),
            addresses: dhcp.as_ref().map(|dhcp| dhcp.addresses),
            max_clients: options.max_clients,
            totals,
        }
    }

    /// Why its DHCP server does not work as it should; those of rooms are their guests' business.
    pub fn dhcp_problems(&self) -> Vec<String> {
        self.own.borrow().as_ref().map(|own| own.borrow_mut().problems()).unwrap_or_default()
    }

    /// What frames of its guests are held to, behind a bridge with this address.
    pub fn policy(&self, gateway_mac: MacAddr) -> FramePolicy {
        FramePolicy {
            max_len: max_frame_len(self.options.mtu),
            gateway_mac,
            allow_vlan: self.options.allow_vlan,
        }
    }

    /// The DHCP server behind a bridge with these addresses, if it is the built-in one.
    pub fn dhcp(&self, gateway: Ipv4Addr, gateway_mac: MacAddr) -> Option<Rc<RefCell<Dhcp>>> {
        let mtu = self.options.mtu;
        let answered = || Rc::clone(&self.answered);
        let serve =
            |opened: OpenedDhcp| Rc::new(RefCell::new(opened.serve(gateway_mac, mtu, answered())));
        let Some(rooms) = self.options.rooms else {
            let mut own = self.own.borrow_mut();
            if own.is_none() {
                *own = self.opened.borrow_mut().take().map(serve);
            }
            return own.clone();
        };
        if self.options.dhcp.service != DhcpService::Builtin {
            return None;
        }
        let mut servers = self.rooms.borrow_mut();
        if let Some(server) = servers.get(&gateway).and_then(Weak::upgrade) {
            return Some(server);
        }
        let plan = Plan::new(Cidr::containing(gateway, rooms.prefix_len)).ok()?;
        let server = serve(OpenedDhcp::of_room(&self.options, plan));
        servers.retain(|_, server| server.strong_count() > 0);
        servers.insert(gateway, Rc::downgrade(&server));
        Some(server)
    }
}

/// A network as an operator sees it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    name: &'a str,
    subnet: String,
    gateway: Option<Ipv4Addr>,
    mtu: u16,
    private: bool,
    locks: bool,
    isolation: bool,
    max_rooms: Option<u32>,
    rooms: Option<usize>,
    dhcp: &'static str,
    leases: Option<usize>,
    addresses: Option<u32>,
    max_clients: u32,
    #[serde(flatten)]
    totals: Totals,
}

/// What the helper knows a room by.
fn room_key(network: &str, secret: &str) -> RoomKey {
    let text = format!("{network}/{secret}");
    let digest = digest(&SHA256, text.as_bytes());
    let key = digest.as_ref().first_chunk();
    *key.expect("SHA-256 has twice as many bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Method;
    use wsnic_proto::conf::Layer;
    use wsnic_proto::settings::NetworkName;
    use wsnic_proto::{ConfFile, Facts, resolve};

    const CONF: &str = "[network lab]\nsubnet=10.1.0.0/24\n\
         [network secret]\nsubnet=10.2.0.0/24\nprivate=yes\n\
         [network rooms]\nsubnet=10.3.0.0/16\nrooms=yes\n";

    fn networks(conf: &str) -> Networks {
        let file = ConfFile::parse("", conf.as_bytes()).unwrap();
        let (settings, _) = resolve(&file, &Layer::new(), &Facts::default()).unwrap();
        Networks::open(&settings).unwrap()
    }

    fn someone(network: Option<&str>) -> Identity {
        let network = network.map(|name| NetworkName::new(name).unwrap());
        Identity { network, ..Identity::plain(None, Method::Anyone) }
    }

    fn choose(conf: &str, path: &str, network: Option<&str>) -> Result<(u16, bool), Lost> {
        let choice = networks(conf).choose(path, &someone(network))?;
        Ok((choice.network.number, choice.room.is_some()))
    }

    #[test]
    fn the_path_names_the_network_and_every_other_path_leads_to_the_default() {
        for (path, number) in [
            ("/", 0),
            ("/anything/else?a=b", 0),
            ("/default", 0),
            ("/lab", 1),
            ("/lab/", 1),
            ("//lab?token=x", 1),
            ("/lab/TOKEN", 1),
            ("/Lab", 0),
        ] {
            assert_eq!(choose(CONF, path, None), Ok((number, false)), "{path}");
        }
    }

    #[test]
    fn strict_paths_lead_to_a_network_or_nowhere() {
        let conf = format!("strict_paths=yes\n{CONF}");
        assert_eq!(choose(&conf, "/lab", None), Ok((1, false)));
        assert_eq!(choose(&conf, "/", None), Ok((0, false)));
        assert_eq!(choose(&conf, "/other", None), Err(Lost::Path));
        assert_eq!(choose(&conf, "/other", Some("lab")), Err(Lost::Path));
    }

    #[test]
    fn a_proof_leads_to_its_network_and_to_no_other() {
        assert_eq!(choose(CONF, "/", Some("lab")), Ok((1, false)));
        assert_eq!(choose(CONF, "/lab", Some("lab")), Ok((1, false)));
        assert_eq!(choose(CONF, "/default", Some("lab")), Err(Lost::Forbidden));
        assert_eq!(choose(CONF, "/", Some("gone")), Err(Lost::Forbidden));
    }

    #[test]
    fn a_private_network_is_for_proofs_that_name_it() {
        assert_eq!(choose(CONF, "/secret", None), Err(Lost::Forbidden));
        assert_eq!(choose(CONF, "/secret", Some("secret")), Ok((2, false)));
        assert_eq!(choose("private=yes", "/", None), Err(Lost::Forbidden));
        assert_eq!(choose("private=yes", "/", Some("default")), Ok((0, false)));
    }

    #[test]
    fn rooms_are_told_apart_by_their_secret() {
        let networks = networks(CONF);
        let room = |path: &str| networks.choose(path, &someone(None)).unwrap().room.unwrap();
        assert_eq!(room("/rooms/a"), room("/rooms/a/?token=x"));
        assert_ne!(room("/rooms/a"), room("/rooms/b"));
        assert_eq!(choose(CONF, "/rooms", None), Err(Lost::Path));
        assert_eq!(choose(CONF, "/", Some("rooms")), Err(Lost::Path));
        let long = format!("/rooms/{}", "x".repeat(MAX_SECRET + 1));
        assert_eq!(choose(CONF, &long, None), Err(Lost::Path));
        assert_eq!(choose(CONF, "/rooms/x", Some("lab")), Err(Lost::Forbidden));
    }

    #[test]
    fn each_room_has_a_dhcp_server_for_as_long_as_it_has_guests() {
        let networks = networks(CONF);
        let rooms = networks.networks.last().unwrap();
        let of = |last: u8| rooms.dhcp(Ipv4Addr::new(10, 3, last, 1), MacAddr([2; 6])).unwrap();
        let (first, second) = (of(0), of(1));
        assert!(Rc::ptr_eq(&first, &of(0)) && !Rc::ptr_eq(&first, &second));
        drop(first);
        let _third = of(2);
        assert_eq!(rooms.rooms.borrow().len(), 2, "what is empty is forgotten");
        let lab = &networks.networks[1];
        let of_lab = || lab.dhcp(Ipv4Addr::new(10, 1, 0, 1), MacAddr([2; 6])).unwrap();
        assert!(Rc::ptr_eq(&of_lab(), &of_lab()), "the one of a network stays");
    }
}
