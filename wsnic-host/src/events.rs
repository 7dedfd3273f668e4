//! What happens to interfaces, as rtnetlink tells it.

use crate::{Link, describe};
use futures_util::{Stream, StreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use std::io;

/// What happens to an interface, whoever does it.
pub enum Event {
    /// It is new, or something about it has changed.
    Changed(Link),
    /// It has vanished.
    Gone(Link),
    /// So much has happened that the kernel could not tell all of it.
    Lost,
}

/// What happens to interfaces.
///
/// # Errors
/// The kernel gives no socket.
pub fn events() -> io::Result<impl Stream<Item = Event> + Unpin> {
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    // Messages of family AF_BRIDGE tell of an interface's place on its bridge only.
    let whole = |link: LinkMessage| {
        (link.header.interface_family == AddressFamily::Unspec).then(|| describe(link))
    };
    let event = move |message: NetlinkMessage<_>| match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
            whole(link).map(Event::Changed)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
            whole(link).map(Event::Gone)
        }
        NetlinkPayload::Overrun(_) => Some(Event::Lost),
        _ => None,
    };
    Ok(messages.filter_map(move |(message, _)| std::future::ready(event(message))))
}
