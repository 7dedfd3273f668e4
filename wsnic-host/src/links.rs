//! Interfaces, addresses and routes, read over rtnetlink.
//!
//! Everything that wsnic makes carries one of three interface groups (IFLA_GROUP), by which an
//! earlier run's leftovers are found.

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoBridgePort, InfoData, InfoPortData, InfoTun, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use wsnic_proto::ports::Lan;
use wsnic_proto::{Cidr, PortId};

/// Begins the names of all bridges that guests' packets come and go by.
pub const BRIDGE_PREFIX: &str = "wsbr";
/// The bridge of every network.
pub const BRIDGE_GROUP: u32 = 0x7773_0000;
/// Ports in use.
pub const PORT_GROUP: u32 = 0x7773_0001;
/// Ports about to be deleted, all by one message.
pub const DYING_GROUP: u32 = 0x7773_0002;
/// Begins the names of ports.
pub const PORT_PREFIX: &str = "wstap";
/// Begins the names of bridges for the ports that the network's own does not take, and of the cables
/// between the two.
pub const LEAF_PREFIX: &str = "wsleaf";

/// The name of a port's TAP.
pub fn port_name(port: PortId) -> String {
    format!("{PORT_PREFIX}{}", port.0)
}

/// The name of a network's bridge, or of a room's if the network has rooms.
pub fn bridge_name(lan: Lan, has_rooms: bool) -> String {
    match has_rooms {
        false => format!("{BRIDGE_PREFIX}{}", lan.network),
        true => format!("{}{}", rooms_prefix(lan.network), lan.room),
    }
}

/// Begins the names of the bridges of a network's rooms, and of no other's.
pub fn rooms_prefix(network: u16) -> String {
    format!("{BRIDGE_PREFIX}{network}r")
}

/// The network or room whose bridge has this name, and whether it is a room, if it is one of ours.
pub fn lan_of(name: &str) -> Option<(Lan, bool)> {
    let numbers = name.strip_prefix(BRIDGE_PREFIX)?;
    let (network, room) = match numbers.split_once('r') {
        Some((network, room)) => (network, Some(room.parse().ok()?)),
        None => (numbers, None),
    };
    let lan = Lan { network: network.parse().ok()?, room: room.unwrap_or(0) };
    (bridge_name(lan, room.is_some()) == name).then_some((lan, room.is_some()))
}

/// The port whose TAP has this name, if it is one of ours.
pub fn port_of(name: &str) -> Option<PortId> {
    let number: u32 = name.strip_prefix(PORT_PREFIX)?.parse().ok()?;
    (port_name(PortId(number)) == name).then_some(PortId(number))
}

/// An interface as it is.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// IFLA_GROUP.
    pub group: u32,
    /// IFLA_IFALIAS, a note.
    pub alias: String,
    /// Whether packets that come in here are forwarded.
    pub forwarding: bool,
    /// Whether it was set up (IFF_UP).
    pub up: bool,
    /// Whether it is up and has a carrier (IFF_RUNNING).
    pub running: bool,
    /// IFLA_ADDRESS.
    pub address: Vec<u8>,
    /// Of a bridge's port: whether it is locked; None: it is no port, or the kernel knows no locks.
    pub locked: Option<bool>,
    /// Of a TUN or TAP: IFLA_TUN_… of IFLA_INFO_DATA.
    pub tun: Vec<InfoTun>,
}

impl Link {
    /// Number of the network whose bridge has this name, if it has one bridge.
    pub fn network(&self) -> Option<u16> {
        lan_of(&self.name).filter(|(_, is_room)| !is_room).map(|(lan, _)| lan.network)
    }
}

/// A connection to rtnetlink.
#[derive(Clone, Debug)]
pub struct Links(pub Handle);

impl Links {
    /// Opens a connection, which is served by a task of the current runtime.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn connect() -> io::Result<Links> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Links(handle))
    }

    /// All interfaces.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn all(&self) -> io::Result<Vec<Link>> {
        self.0.link().get().execute().map_ok(describe).try_collect().await.map_err(io_error)
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// What the kernel says; `None` is no error.
    pub async fn find(&self, name: &str) -> io::Result<Option<Link>> {
        let mut links = std::pin::pin!(self.0.link().get().match_name(name.to_owned()).execute());
        match links.next().await.transpose().map_err(io_error) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            found => Ok(found?.map(describe)),
        }
    }

    /// The IPv4 blocks of all interfaces, with the interface's index.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn addresses(&self) -> io::Result<Vec<(u32, Cidr)>> {
        let messages: Vec<_> =
            self.0.address().get().execute().try_collect().await.map_err(io_error)?;
        let blocks = messages.iter().filter_map(|message| {
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
                _ => None,
            })?;
            Some((message.header.index, Cidr::containing(address, message.header.prefix_len)))
        });
        Ok(blocks.collect())
    }

    /// The interface of the IPv4 default route with the lowest metric.
    ///
    /// # Errors
    /// What the kernel says; `None` is no error.
    pub async fn default_route(&self) -> io::Result<Option<String>> {
        let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> =
            self.0.route().get(request).execute().try_collect().await.map_err(io_error)?;
        let is_default = |route: &&RouteMessage| {
            let table = number(route, |attribute| match attribute {
                RouteAttribute::Table(table) => Some(*table),
                _ => None,
            });
            route.header.destination_prefix_length == 0
                && route.header.kind == RouteType::Unicast
                && table.unwrap_or(u32::from(route.header.table)) == RT_TABLE_MAIN
        };
        let metric = |route: &RouteMessage| {
            number(route, |attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(*metric),
                _ => None,
            })
        };
        let ways = routes.iter().filter(is_default);
        let best = ways.filter_map(|route| Some((metric(route), out_interface(route)?))).min();
        self.name_of(best.map(|(_, index)| index)).await
    }

    /// The interface by which packets to `address` leave.
    ///
    /// # Errors
    /// What the kernel says; `None` (no route) is no error.
    pub async fn route_to(&self, address: Ipv4Addr) -> io::Result<Option<String>> {
        let mut request =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build();
        request.header.table = 0;
        let mut routes = std::pin::pin!(self.0.route().get(request).execute());
        match routes.next().await {
            Some(Ok(route)) if route.header.kind == RouteType::Unicast => {
                self.name_of(out_interface(&route)).await
            }
            _ => Ok(None),
        }
    }

    async fn name_of(&self, index: Option<u32>) -> io::Result<Option<String>> {
        let Some(index) = index else { return Ok(None) };
        Ok(self.all().await?.into_iter().find(|link| link.index == index).map(|link| link.name))
    }
}

/// An interface as the kernel describes it.
pub fn describe(message: LinkMessage) -> Link {
    let (up, running) = (LinkFlags::Up, LinkFlags::Running);
    let [up, running] = [up, running].map(|flag| message.header.flags.contains(flag));
    let mut link = Link { index: message.header.index, up, running, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::Address(address) => link.address = address,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Data(InfoData::Tun(tun)) => link.tun = tun,
                        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                            link.locked = port.iter().find_map(|info| match info {
                                InfoBridgePort::Locked(locked) => Some(*locked),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            LinkAttribute::AfSpecUnspec(specs) => {
                link.forwarding = specs.iter().any(|spec| match spec {
                    AfSpecUnspec::Inet(confs) => confs.iter().any(
                        |conf| matches!(conf, AfSpecInet::DevConf(conf) if conf.forwarding != 0),
                    ),
                    _ => false,
                });
            }
            _ => {}
        }
    }
    link
}

fn number(route: &RouteMessage, of: impl Fn(&RouteAttribute) -> Option<u32>) -> Option<u32> {
    route.attributes.iter().find_map(of)
}

fn out_interface(route: &RouteMessage) -> Option<u32> {
    number(route, |attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// What the kernel said.
pub fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// linux/rtnetlink.h
const RT_TABLE_MAIN: u32 = 254;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_have_the_names_of_their_networks_and_rooms() {
        let lan = |network, room| Lan { network, room };
        assert_eq!(bridge_name(lan(0, 0), false), "wsbr0");
        assert_eq!(bridge_name(lan(3, 17), true), "wsbr3r17");
        assert_eq!(lan_of("wsbr0"), Some((lan(0, 0), false)));
        assert_eq!(lan_of("wsbr3r17"), Some((lan(3, 17), true)));
        for name in ["wsbr", "wsbr01", "wsbr1r", "wsbr1r01", "wsbr1r1r1", "wsbr99999", "xwsbr0"] {
            assert_eq!(lan_of(name), None, "{name}");
        }
    }

    #[test]
    fn only_names_that_we_would_give_are_ours() {
        assert_eq!(port_of("wstap0"), Some(PortId(0)));
        assert_eq!(port_of("wstap1022"), Some(PortId(1022)));
        for name in ["wstap", "wstap01", "wstap-1", "wstap+1", "wstap1x", "eth0", "wstap4294967296"]
        {
            assert_eq!(port_of(name), None, "{name}");
        }
    }
}
