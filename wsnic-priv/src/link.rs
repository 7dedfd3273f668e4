//! Interfaces, addresses and routes over rtnetlink: the helper's only file that knows them.
//!
//! Everything that wsnic makes carries one of three interface groups (IFLA_GROUP), by which an
//! earlier run's leftovers are found; nothing without such a mark is ever changed or deleted.

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge,
    LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, MulticastGroup, RouteMessageBuilder,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use wsnic_proto::{Cidr, MacAddr, PortId};

/// The bridge of every network.
pub const BRIDGE_GROUP: u32 = 0x7773_0000;
/// Ports in use.
pub const PORT_GROUP: u32 = 0x7773_0001;
/// Ports about to be deleted, all by one message.
pub const DYING_GROUP: u32 = 0x7773_0002;
/// Frames that wait in a TAP while its guest does not read; more are dropped by the kernel.
const PORT_QUEUE_LEN: u32 = 500;
/// What IFLA_INET_CONF and IPV4_DEVCONF_FORWARDING are called in linux/if_link.h and linux/ip.h.
const INET_CONF: u16 = 1;
const DEVCONF_FORWARDING: u16 = 1;
const PORT_PREFIX: &str = "wstap";

/// The name of a port's TAP.
pub fn port_name(port: PortId) -> String {
    format!("{PORT_PREFIX}{}", port.0)
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
    /// Whether it is up and has a carrier (IFF_RUNNING).
    pub running: bool,
}

/// A connection to rtnetlink.
#[derive(Clone, Debug)]
pub struct Links(Handle);

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
        Ok(self.all().await?.into_iter().find(|link| link.name == name))
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
        let best = routes
            .iter()
            .filter(|route| {
                route.header.destination_prefix_length == 0
                    && route.header.kind == RouteType::Unicast
                    && table(route) == RT_TABLE_MAIN
            })
            .filter_map(|route| Some((metric(route), out_interface(route)?)))
            .min();
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

    /// Makes a bridge that is down, without an address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_bridge(&self, name: &str, mac: MacAddr, mtu: u16) -> io::Result<()> {
        // No spanning tree and no delay: ports forward from their first frame. No snooping: guests'
        // multicast reaches guests that never joined, as on the old program's bridge with no querier.
        let bridge = LinkBridge::new(name)
            .address(mac.0.to_vec())
            .mtu(u32::from(mtu))
            .link_group(BRIDGE_GROUP)
            .append_info_data(InfoBridge::StpState(BridgeStpState::Disabled))
            .append_info_data(InfoBridge::ForwardDelay(0))
            .append_info_data(InfoBridge::MulticastSnooping(false));
        self.0.link().add(bridge.build()).execute().await.map_err(io_error)?;
        // The kernel takes no IPv6 settings in the message that makes a link.
        self.set(LinkUnspec::new_with_name(name).append_extra_attribute(without_ipv6_address()))
            .await
    }

    /// Gives an interface its address and sets it up.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_up(&self, name: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let link = self.find(name).await?.ok_or_else(no_device)?;
        let add = self.0.address().add(link.index, IpAddr::V4(address), prefix_len);
        add.execute().await.map_err(io_error)?;
        self.set(LinkUnspec::new_with_index(link.index).up()).await
    }

    /// Turns a new TAP into a port: marked, noted, sized, on the bridge, up. Returns its index.
    ///
    /// # Errors
    /// What the kernel says; `EXFULL` when the bridge is full.
    pub async fn attach_port(
        &self,
        name: &str,
        bridge: u32,
        mtu: u16,
        alias: &str,
    ) -> io::Result<u32> {
        let mut links = std::pin::pin!(self.0.link().get().match_name(name).execute());
        let link = links.next().await.ok_or_else(no_device)?.map_err(io_error)?;
        let index = link.header.index;
        let marks = LinkUnspec::new_with_index(index)
            .link_group(PORT_GROUP)
            .alias(alias)
            .mtu(u32::from(mtu))
            .txqueuelen(PORT_QUEUE_LEN)
            .append_extra_attribute(without_ipv6_address());
        self.set(marks).await?;
        // In a second message: within one, the kernel brings the link up before it looks at IPv6.
        self.set(LinkUnspec::new_with_index(index).controller(bridge).up()).await?;
        Ok(index)
    }

    /// Deletes these interfaces, which have [`PORT_GROUP`], by one message.
    ///
    /// Takes some 20 ms of kernel time whatever their number, and blocks the caller's thread.
    ///
    /// # Errors
    /// What the kernel says; an interface that is gone already is no error.
    pub async fn delete_ports(&self, names: impl Iterator<Item = String>) -> io::Result<()> {
        for name in names {
            let dying = LinkUnspec::new_with_name(&name).link_group(DYING_GROUP);
            ignore_missing(self.set(dying).await)?;
        }
        self.delete_group(DYING_GROUP).await
    }

    /// Deletes every interface of a group.
    ///
    /// # Errors
    /// What the kernel says; an empty group is no error.
    pub async fn delete_group(&self, group: u32) -> io::Result<()> {
        let message = LinkMessageBuilder::<LinkUnspec>::default().link_group(group).build();
        let deleted = self.0.link().del_with_message(message).execute().await;
        ignore_missing(deleted.map_err(io_error))
    }

    /// Writes a note on an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_alias(&self, name: &str, alias: &str) -> io::Result<()> {
        self.set(LinkUnspec::new_with_name(name).alias(alias)).await
    }

    /// Whether packets that come in by this interface are forwarded (net.ipv4.conf.NAME.forwarding).
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_forwarding(&self, name: &str, on: bool) -> io::Result<()> {
        // netlink-packet-route leaves zeros out of its own request, so the value is written here.
        let mut value = vec![8, 0, 0, 0];
        value[2..].copy_from_slice(&DEVCONF_FORWARDING.to_ne_bytes());
        value.extend_from_slice(&u32::from(on).to_ne_bytes());
        let conf = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, value));
        let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![conf])]);
        self.set(LinkUnspec::new_with_name(name).append_extra_attribute(spec)).await
    }

    async fn set(&self, message: LinkMessageBuilder<LinkUnspec>) -> io::Result<()> {
        self.0.link().set(message.build()).execute().await.map_err(io_error)
    }
}

/// Interfaces as they vanish, whoever deleted them.
///
/// # Errors
/// The kernel gives no socket.
pub fn vanished() -> io::Result<impl Stream<Item = Link> + Unpin> {
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    Ok(Box::pin(messages.filter_map(async |(message, _): (NetlinkMessage<_>, _)| {
        match message.payload {
            // One of family AF_BRIDGE only says that an interface has left its bridge.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                if link.header.interface_family == AddressFamily::Unspec =>
            {
                Some(describe(link))
            }
            _ => None,
        }
    })))
}

/// No link-local address, hence no IPv6 frame of the host's own towards guests.
fn without_ipv6_address() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

fn describe(message: LinkMessage) -> Link {
    let running = message.header.flags.contains(LinkFlags::Running);
    let mut link = Link { index: message.header.index, running, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Group(group) => link.group = group,
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

const RT_TABLE_MAIN: u32 = 254;

fn table(route: &RouteMessage) -> u32 {
    let long = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or(u32::from(route.header.table))
}

fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

fn out_interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn no_device() -> io::Error {
    nix::Error::ENODEV.into()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
        other => other,
    }
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
