//! Interfaces as the helper changes them, over rtnetlink; reading them is `wsnic-host`'s.
//!
//! Nothing without one of our interface groups (IFLA_GROUP) is ever changed or deleted, but for the
//! forwarding of interfaces that guests' packets pass.

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge,
    InfoBridgePort, InfoData, InfoVeth, LinkAttribute,
};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use wsnic_host::io_error;
pub use wsnic_host::{BRIDGE_GROUP, DYING_GROUP, Link, PORT_GROUP, port_name, port_of};
use wsnic_proto::MacAddr;

/// Frames that wait in a TAP while its guest does not read; more are dropped by the kernel.
const PORT_QUEUE_LEN: u32 = 500;
/// What IFLA_INET_CONF and IPV4_DEVCONF_FORWARDING are called in linux/if_link.h and linux/ip.h.
const INET_CONF: u16 = 1;
const DEVCONF_FORWARDING: u16 = 1;

/// Which 01-80-C2-00-00-0x a locked port hands to the bridge like any other, so that the rules for its
/// frames see them; else the kernel gives them to the host. All but pause frames, which it drops.
const RESERVED: u16 = 0xfffd;

/// What a bridge does with a port's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortFlags {
    /// Frames pass whose MAC address has been added to the port ([`Links::add_mac`]), and no others:
    /// none comes in from another address, none goes out to one but to all stations or a group.
    pub locked: bool,
    /// No frame passes to another port that is isolated.
    pub isolated: bool,
}

/// A connection to rtnetlink, to read by and to change. Errors are what the kernel says.
#[derive(Clone, Debug)]
pub struct Links(wsnic_host::Links, Arc<OnceLock<bool>>);

impl Deref for Links {
    type Target = wsnic_host::Links;

    fn deref(&self) -> &wsnic_host::Links {
        &self.0
    }
}

impl Links {
    /// Opens a connection, which is served by a task of the current runtime.
    pub fn connect() -> io::Result<Links> {
        Ok(Links(wsnic_host::Links::connect()?, Arc::default()))
    }

    /// Makes a bridge that is down, without an address.
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
        self.0.0.link().add(bridge.build()).execute().await.map_err(io_error)?;
        // The kernel takes no IPv6 settings in the message that makes a link.
        self.set(LinkUnspec::new_with_name(name).append_extra_attribute(without_ipv6_address()))
            .await
    }

    /// Sets a bridge up that the host takes no part in; returns its index.
    pub async fn set_up_apart(&self, name: &str) -> io::Result<u32> {
        // The host answers ARP for each of its addresses on every interface that takes ARP.
        self.set(LinkUnspec::new_with_name(name).arp(false).up()).await?;
        Ok(self.find(name).await?.ok_or_else(no_device)?.index)
    }

    /// Makes a cable with these ends, each plugged into its bridge and up; returns the first's index.
    /// `isolated` holds for the first end.
    pub async fn add_cable(
        &self,
        ends: [&str; 2],
        bridges: [u32; 2],
        mtu: u16,
        isolated: bool,
    ) -> io::Result<u32> {
        let mtu = u32::from(mtu);
        let other = LinkUnspec::new_with_name(ends[1]).link_group(BRIDGE_GROUP).mtu(mtu).build();
        // Both have their mark from the start: what is found without one is somebody else's.
        let cable = LinkVeth::new(ends[0], ends[1])
            .link_group(BRIDGE_GROUP)
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other)));
        self.0.0.link().add(cable.build()).execute().await.map_err(io_error)?;
        let index = self.find(ends[0]).await?.ok_or_else(no_device)?.index;
        for (name, bridge) in ends.into_iter().zip(bridges) {
            let quiet =
                LinkUnspec::new_with_name(name).append_extra_attribute(without_ipv6_address());
            self.set(quiet).await?;
            self.set(LinkUnspec::new_with_name(name).controller(bridge)).await?;
        }
        if isolated {
            let isolated =
                LinkBridgePort::new(index).append_info_data(InfoBridgePort::Isolated(true));
            self.set_port(isolated).await?;
        }
        for name in ends {
            self.set(LinkUnspec::new_with_name(name).up()).await?;
        }
        Ok(index)
    }

    /// Gives an interface its address and sets it up.
    pub async fn set_up(&self, name: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let link = self.find(name).await?.ok_or_else(no_device)?;
        let add = self.0.0.address().add(link.index, IpAddr::V4(address), prefix_len);
        add.execute().await.map_err(io_error)?;
        self.set(LinkUnspec::new_with_index(link.index).up()).await
    }

    /// Turns a new TAP into a port: marked, noted, sized, on the bridge, with its flags, up. Returns how
    /// it was made; its `locked` is None when it is to be locked and this kernel cannot (before 5.18).
    /// `has_ipv6` tells that it would take an IPv6 address when it comes up.
    ///
    /// # Errors
    /// What the kernel says; `EXFULL` when the bridge is full.
    pub async fn attach_port(
        &self,
        name: &str,
        bridge: u32,
        mtu: u16,
        alias: &str,
        has_ipv6: bool,
        flags: PortFlags,
    ) -> io::Result<Link> {
        let mut link = self.find(name).await?.ok_or_else(no_device)?;
        if has_ipv6 {
            // In a message before: within one, the kernel brings the link up before it looks at IPv6.
            let quiet = LinkUnspec::new_with_index(link.index);
            self.set(quiet.append_extra_attribute(without_ipv6_address())).await?;
        }
        // All in one, for each message takes the lock of all interfaces, which others may hold for long.
        let port = LinkUnspec::new_with_index(link.index)
            .link_group(PORT_GROUP)
            .alias(alias)
            .mtu(u32::from(mtu))
            .txqueuelen(PORT_QUEUE_LEN)
            .append_extra_attribute(without_ipv6_address())
            .controller(bridge);
        if flags == PortFlags::default() {
            self.set(port.up()).await?;
            return Ok(link);
        }
        // The kernel takes them for what is a port already.
        self.set(port).await?;
        self.set_port(of_port(link.index, flags).up()).await?;
        if flags.locked {
            let known = match self.1.get() {
                Some(known) => *known,
                None => {
                    let found = self.find(name).await?.ok_or_else(no_device)?;
                    *self.1.get_or_init(|| found.locked.is_some())
                }
            };
            link.locked = known.then_some(true);
        }
        Ok(link)
    }

    /// Lets a locked port use a MAC address, which moves to it from whichever port of the bridge had it.
    /// One that is on no bridge (`EOPNOTSUPP`) gets its addresses with the next.
    pub async fn add_mac(&self, port: u32, mac: MacAddr) -> io::Result<()> {
        // Sticky: not even a frame that comes by a cable moves it.
        let add = self.0.0.neighbours().add_bridge(port, &mac.0).state(NeighbourState::Noarp);
        let add = add.flags(NeighbourFlags::Controller | NeighbourFlags::Sticky).replace();
        ignore(add.execute().await.map_err(io_error), &[nix::libc::EOPNOTSUPP])
    }

    /// Takes a MAC address from a port; one that it does not have, or that has moved, is no error.
    pub async fn remove_mac(&self, port: u32, mac: MacAddr) -> io::Result<()> {
        let mut entry = self.0.0.neighbours().add_bridge(port, &mac.0);
        entry.message_mut().header.flags = NeighbourFlags::Controller;
        let remove = self.0.0.neighbours().del(entry.message_mut().clone());
        let harmless = [nix::libc::ENOENT, nix::libc::ENODEV, nix::libc::EOPNOTSUPP];
        ignore(remove.execute().await.map_err(io_error), &harmless)
    }

    /// Deletes these interfaces, which have [`PORT_GROUP`], by one message; one that is gone already
    /// is no error.
    ///
    /// Takes some 20 ms of kernel time whatever their number, and blocks the caller's thread.
    pub async fn delete_ports(&self, names: impl Iterator<Item = String>) -> io::Result<()> {
        for name in names {
            let dying = LinkUnspec::new_with_name(&name).link_group(DYING_GROUP);
            ignore(self.set(dying).await, &[nix::libc::ENODEV])?;
        }
        self.delete_group(DYING_GROUP).await
    }

    /// Deletes an interface that has [`BRIDGE_GROUP`]; one that is gone already is no error.
    pub async fn delete(&self, name: &str) -> io::Result<()> {
        match self.find(name).await?.filter(|link| link.group == BRIDGE_GROUP) {
            Some(link) => {
                let deleted = self.0.0.link().del(link.index).execute().await;
                ignore(deleted.map_err(io_error), &[nix::libc::ENODEV])
            }
            None => Ok(()),
        }
    }

    /// Deletes every interface of a group; an empty group is no error.
    pub async fn delete_group(&self, group: u32) -> io::Result<()> {
        let message = LinkMessageBuilder::<LinkUnspec>::default().link_group(group).build();
        let deleted = self.0.0.link().del_with_message(message).execute().await;
        ignore(deleted.map_err(io_error), &[nix::libc::ENODEV])
    }

    /// Writes a note on an interface.
    pub async fn set_alias(&self, name: &str, alias: &str) -> io::Result<()> {
        self.set(LinkUnspec::new_with_name(name).alias(alias)).await
    }

    /// Whether packets that come in by this interface are forwarded (net.ipv4.conf.NAME.forwarding).
    pub async fn set_forwarding(&self, name: &str, on: bool) -> io::Result<()> {
        // netlink-packet-route leaves zeros out of its own request, so the value is written here.
        let mut value = vec![8, 0, 0, 0];
        value[2..].copy_from_slice(&DEVCONF_FORWARDING.to_ne_bytes());
        value.extend_from_slice(&u32::from(on).to_ne_bytes());
        let conf = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, value));
        let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![conf])]);
        self.set(LinkUnspec::new_with_name(name).append_extra_attribute(spec)).await
    }

    async fn set_port(&self, message: LinkMessageBuilder<LinkBridgePort>) -> io::Result<()> {
        self.0.0.link().set_port(message.build()).execute().await.map_err(io_error)
    }

    async fn set(&self, message: LinkMessageBuilder<LinkUnspec>) -> io::Result<()> {
        self.0.0.link().set(message.build()).execute().await.map_err(io_error)
    }
}

/// All that is to hold for a port. Frames to all stations and to groups go out by every port.
fn of_port(index: u32, flags: PortFlags) -> LinkMessageBuilder<LinkBridgePort> {
    LinkBridgePort::new(index)
        .append_info_data(InfoBridgePort::Locked(flags.locked))
        .append_info_data(InfoBridgePort::Learning(!flags.locked))
        .append_info_data(InfoBridgePort::UnicastFlood(!flags.locked))
        .append_info_data(InfoBridgePort::GroupFwdMask(if flags.locked { RESERVED } else { 0 }))
        .append_info_data(InfoBridgePort::Isolated(flags.isolated))
}

/// No link-local address, hence no IPv6 frame of the host's own towards guests.
fn without_ipv6_address() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

fn no_device() -> io::Error {
    nix::Error::ENODEV.into()
}

fn ignore(result: io::Result<()>, harmless: &[i32]) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|code| harmless.contains(&code)) => Ok(()),
        other => other,
    }
}
