//! Noticing that the holder of a TAP's fd has issued an ioctl on it.
//!
//! The front-end issues none, its system call filter kills it for trying: a TAP that is not as the
//! helper made it means that somebody else speaks with the front-end's voice. the helper compares
//! each change that rtnetlink tells of a port; pure decision, no system call.
//!
//! Measured on Linux 6.18 (every row is one RTM_NEWLINK, or none):
//!
//! | ioctl | told by | here |
//! |---|---|---|
//! | SIOCSIFHWADDR | IFLA_ADDRESS | noticed |
//! | TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP | IFLA_INFO_DATA | noticed |
//! | TUNSETCARRIER | IFLA_CARRIER | not: every TAP loses its carrier as it ends |
//! | TUNSETOFFLOAD | IFLA_EVENT alone, without a value | not: any change of features looks so |
//! | TUNSETSNDBUF, TUNSETVNETHDRSZ, TUNSETVNETLE, TUNSETTXFILTER, TUNATTACHFILTER | nothing | not |
//! | TUNSETIFF, TUNSETQUEUE, TUNSETLINK | refused on such a TAP | |
//!
//! What is not noticed harms the holder's own frames only; the filter alone forbids it. What an
//! administrator may do (MTU, up and down, a note) changes none of what is compared.

use crate::Link;
use netlink_packet_core::Nla;

/// What is different about a TAP from how it was made, if anything is that only its holder changes.
pub fn changed(made: &Link, now: &Link) -> Option<&'static str> {
    // An earlier interface of this name, or a message that does not say.
    if made.index != now.index || now.tun.is_empty() {
        return None;
    }
    if made.address != now.address {
        return Some("its MAC address");
    }
    let of = |link: &'_ Link, kind| link.tun.iter().find(|info| info.kind() == kind).cloned();
    TUN_INFO.into_iter().find(|(kind, _)| of(made, *kind) != of(now, *kind)).map(|(_, name)| name)
}

/// IFLA_TUN_… (linux/if_link.h).
const TUN_INFO: [(u16, &str); 7] = [
    (1, "its owner"),
    (2, "its group"),
    (3, "its type"),
    (4, "its packet information"),
    (5, "its header"),
    (6, "its persistence"),
    (7, "its queues"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::DefaultNla;
    use netlink_packet_route::link::InfoTun;

    fn tap(address: u8, info: &[(u16, u8)]) -> Link {
        let tun = |(kind, value): &(u16, u8)| InfoTun::Other(DefaultNla::new(*kind, vec![*value]));
        let tun = info.iter().map(tun).collect();
        Link { index: 7, address: vec![address; 6], tun, ..Link::default() }
    }

    #[test]
    fn what_the_holder_can_change_is_named() {
        let made = tap(2, &[(1, 0), (2, 0), (6, 0)]);
        assert_eq!(changed(&made, &made), None);
        assert_eq!(changed(&made, &tap(4, &[(1, 0), (2, 0), (6, 0)])), Some("its MAC address"));
        assert_eq!(changed(&made, &tap(2, &[(1, 0), (2, 0), (6, 1)])), Some("its persistence"));
        assert_eq!(changed(&made, &tap(2, &[(1, 0), (6, 0)])), Some("its group"), "taken away");
        assert_eq!(changed(&made, &tap(2, &[(2, 0), (1, 9), (6, 0)])), Some("its owner"));
    }

    #[test]
    fn what_others_may_change_and_other_interfaces_are_nothing() {
        let made = tap(2, &[(1, 0), (6, 0)]);
        let alias = "an administrator's note".to_owned();
        assert_eq!(changed(&made, &Link { alias, running: true, ..made.clone() }), None);
        assert_eq!(changed(&made, &Link { index: 8, ..tap(4, &[(1, 9)]) }), None);
        assert_eq!(changed(&made, &tap(4, &[])), None, "a message without the data of a TAP");
    }
}
