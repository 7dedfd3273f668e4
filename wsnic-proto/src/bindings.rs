//! Which addresses each port may use: the helper's decision about every request to bind one.
//!
//! Pure state of the helper. A guest's addresses are learned by the front-end, which asks for them; what
//! the kernel then lets pass is decided here. An address has one port at a time in its LAN, and who has it
//! keeps it: a newcomer with the same MAC, a clone of a machine's state, is refused until it is free.
//! A guest that changes its addresses (a restored machine takes a new MAC) does so at a bounded rate.

use crate::ports::Lan;
use crate::{ErrorCode, MacAddr, Plan, PortId};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Instant;

/// IPv4 addresses of each MAC address: one, and what is left of those that it had before.
const ADDRESSES: usize = 4;
/// Changes that a port may make at once, and in a second in the long run.
const BURST: f64 = 32.0;
const PER_SECOND: f64 = 1.0;

/// A MAC address of a port; with an IPv4 address, or for everything else.
pub type Pair = (MacAddr, Option<Ipv4Addr>);

/// What holds for all ports of a LAN.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whose addresses they are.
    pub plan: Plan,
    /// The bridge's own.
    pub gateway_mac: MacAddr,
    /// MAC addresses of one port.
    pub max_macs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    Mac(MacAddr),
    Ipv4(Ipv4Addr),
}

#[derive(Debug)]
struct Held {
    lan: Lan,
    /// The oldest first.
    pairs: Vec<Pair>,
    tokens: f64,
    refilled: Instant,
}

/// What a port has from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// All of it.
    pub pairs: Vec<Pair>,
    /// MAC addresses that are new.
    pub new: Option<MacAddr>,
    /// MAC addresses that it has no more.
    pub gone: Option<MacAddr>,
    /// The port that the IPv4 address was taken from, and what is left to it.
    pub loser: Option<(PortId, Vec<Pair>)>,
}

/// The bindings of all ports.
#[derive(Debug, Default)]
pub struct Bindings {
    ports: HashMap<PortId, Held>,
    owners: HashMap<(Lan, Address), PortId>,
}

impl Bindings {
    /// A port asks for an address. None: it has it already. An IPv4 address is taken from ports of which
    /// `may_take` is true: those of the one who has given it to another guest since.
    ///
    /// # Errors
    /// It is no guest's address, another port has it, or the port changes its addresses too often.
    pub fn bind(
        &mut self,
        port: PortId,
        lan: Lan,
        rules: Rules,
        (mac, address): Pair,
        may_take: impl Fn(PortId) -> bool,
        now: Instant,
    ) -> Result<Option<Change>, ErrorCode> {
        if mac.is_group() || mac == MacAddr::ZERO || mac == rules.gateway_mac {
            return Err(ErrorCode::NotAllowed);
        }
        if address.is_some_and(|address| rules.plan.pool_index(address).is_none()) {
            return Err(ErrorCode::NotAllowed);
        }
        let other = |one| self.owners.get(&(lan, one)).copied().filter(|owner| *owner != port);
        let robbed = address.and_then(|address| other(Address::Ipv4(address)));
        if other(Address::Mac(mac)).is_some() || robbed.is_some_and(|owner| !may_take(owner)) {
            return Err(ErrorCode::Taken);
        }
        let fresh = || Held { lan, pairs: Vec::new(), tokens: BURST, refilled: now };
        let held = self.ports.entry(port).or_insert_with(fresh);
        if held.pairs.contains(&(mac, address)) {
            return Ok(None);
        }
        let elapsed = now.saturating_duration_since(held.refilled).as_secs_f64();
        held.tokens = (held.tokens + elapsed * PER_SECOND).min(BURST);
        held.refilled = now;
        if held.tokens < 1.0 {
            return Err(ErrorCode::TooFast);
        }
        held.tokens -= 1.0;
        let loser = robbed.map(|owner| (owner, self.lose(owner, address)));
        let fresh = || Held { lan, pairs: Vec::new(), tokens: BURST, refilled: now };
        let held = self.ports.entry(port).or_insert_with(fresh);
        let before = held.pairs.clone();
        let is_new = !before.iter().any(|(known, _)| *known == mac);
        let mut gone = None;
        if is_new {
            let macs = before.iter().filter(|(_, address)| address.is_none());
            if macs.clone().count() >= rules.max_macs.max(1) {
                gone = macs.map(|(oldest, _)| *oldest).next();
                held.pairs.retain(|(known, _)| Some(*known) != gone);
            }
            held.pairs.push((mac, None));
        }
        if address.is_some() {
            let of_mac = |pair: &&Pair| pair.0 == mac && pair.1.is_some();
            if held.pairs.iter().filter(of_mac).count() >= ADDRESSES
                && let Some(oldest) = held.pairs.iter().find(of_mac).copied()
            {
                held.pairs.retain(|pair| *pair != oldest);
            }
            // Behind one port it may have moved from one MAC address to the other.
            held.pairs.retain(|pair| pair.1 != address);
            held.pairs.push((mac, address));
        }
        let pairs = held.pairs.clone();
        for one in before.iter().flat_map(addresses) {
            self.owners.remove(&(lan, one));
        }
        let owned = pairs.iter().flat_map(addresses).map(|one| ((lan, one), port));
        self.owners.extend(owned);
        Ok(Some(Change { pairs, new: is_new.then_some(mac), gone, loser }))
    }

    /// A port has an address no more; what it has then.
    fn lose(&mut self, port: PortId, address: Option<Ipv4Addr>) -> Vec<Pair> {
        let Some(held) = self.ports.get_mut(&port) else { return Vec::new() };
        held.pairs.retain(|pair| address.is_none() || pair.1 != address);
        if let Some(address) = address {
            self.owners.remove(&(held.lan, Address::Ipv4(address)));
        }
        held.pairs.clone()
    }

    /// The port is gone, and with it its addresses.
    pub fn release(&mut self, port: PortId) {
        let Some(held) = self.ports.remove(&port) else { return };
        for one in held.pairs.iter().flat_map(addresses) {
            self.owners.remove(&(held.lan, one));
        }
    }

    /// What a port has.
    pub fn of(&self, port: PortId) -> &[Pair] {
        self.ports.get(&port).map_or(&[], |held| &held.pairs)
    }
}

fn addresses((mac, address): &Pair) -> impl Iterator<Item = Address> + use<> {
    [Some(Address::Mac(*mac)), address.map(Address::Ipv4)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LAN: Lan = Lan { network: 0, room: 0 };
    /// No address may be taken from anybody.
    const NOBODYS: fn(PortId) -> bool = |_| false;
    const OTHER_LAN: Lan = Lan { network: 0, room: 1 };
    const P: PortId = PortId(1);
    const Q: PortId = PortId(2);

    fn rules(max_macs: usize) -> Rules {
        let plan = Plan::new("10.0.0.0/24".parse().unwrap()).unwrap();
        Rules { plan, gateway_mac: MacAddr([2, 0, 0, 0, 0, 1]), max_macs }
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 1, last])
    }

    fn ip(last: u8) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::new(10, 0, 0, last))
    }

    /// A port asks; what it has then.
    fn bind(
        table: &mut Bindings,
        port: PortId,
        pair: Pair,
        max_macs: usize,
    ) -> Result<Vec<Pair>, ErrorCode> {
        table.bind(port, LAN, rules(max_macs), pair, NOBODYS, Instant::now())?;
        Ok(table.of(port).to_vec())
    }

    #[test]
    fn a_port_gets_its_first_addresses() {
        let (mut table, now) = (Bindings::default(), Instant::now());
        let change = table.bind(P, LAN, rules(1), (mac(1), None), NOBODYS, now).unwrap().unwrap();
        let pairs = vec![(mac(1), None)];
        assert_eq!(change, Change { pairs, new: Some(mac(1)), gone: None, loser: None });
        let change = table.bind(P, LAN, rules(1), (mac(1), ip(5)), NOBODYS, now).unwrap().unwrap();
        let pairs = vec![(mac(1), None), (mac(1), ip(5))];
        assert_eq!(change, Change { pairs, new: None, gone: None, loser: None });
        assert_eq!(table.bind(P, LAN, rules(1), (mac(1), ip(5)), NOBODYS, now), Ok(None));
    }

    #[test]
    fn nobody_gets_an_address_that_is_no_guests() {
        let mut table = Bindings::default();
        let no_macs =
            [MacAddr::ZERO, MacAddr::BROADCAST, MacAddr([1, 0, 94, 0, 0, 1]), rules(1).gateway_mac];
        for wrong in no_macs {
            assert_eq!(
                bind(&mut table, P, (wrong, None), 1),
                Err(ErrorCode::NotAllowed),
                "{wrong}"
            );
        }
        for wrong in [ip(0), ip(1), ip(255), Some(Ipv4Addr::new(10, 0, 1, 5))] {
            assert_eq!(bind(&mut table, P, (mac(1), wrong), 1), Err(ErrorCode::NotAllowed));
        }
        assert_eq!(table.of(P), []);
    }

    #[test]
    fn who_has_an_address_keeps_it_until_its_port_is_gone() {
        let mut table = Bindings::default();
        bind(&mut table, P, (mac(1), ip(5)), 1).unwrap();
        for stolen in [(mac(1), None), (mac(2), ip(5)), (mac(1), ip(6))] {
            assert_eq!(bind(&mut table, Q, stolen, 1), Err(ErrorCode::Taken), "{stolen:?}");
        }
        let elsewhere =
            table.bind(Q, OTHER_LAN, rules(1), (mac(1), ip(5)), NOBODYS, Instant::now());
        assert!(elsewhere.is_ok(), "another room has addresses of its own");
        table.release(Q);
        table.release(P);
        assert!(bind(&mut table, Q, (mac(1), ip(5)), 1).is_ok());
    }

    #[test]
    fn an_ipv4_address_that_was_given_anew_is_taken_from_who_had_it() {
        let (mut table, now) = (Bindings::default(), Instant::now());
        bind(&mut table, P, (mac(1), ip(5)), 1).unwrap();
        let taken = table.bind(Q, LAN, rules(1), (mac(2), ip(5)), |owner| owner == P, now);
        let loser = Some((P, vec![(mac(1), None)]));
        assert_eq!(taken.unwrap().unwrap().loser, loser);
        assert_eq!(table.of(P), [(mac(1), None)]);
        assert_eq!(bind(&mut table, P, (mac(1), ip(5)), 1), Err(ErrorCode::Taken));
        let stolen = table.bind(P, LAN, rules(1), (mac(2), None), |_| true, now);
        assert_eq!(stolen, Err(ErrorCode::Taken), "a MAC address is never taken");
    }

    #[test]
    fn a_restored_machine_that_changes_its_mac_takes_its_ipv4_address_along() {
        let mut table = Bindings::default();
        bind(&mut table, P, (mac(1), ip(5)), 1).unwrap();
        let change =
            table.bind(P, LAN, rules(1), (mac(2), ip(5)), NOBODYS, Instant::now()).unwrap();
        let pairs = vec![(mac(2), None), (mac(2), ip(5))];
        assert_eq!(
            change,
            Some(Change { pairs, new: Some(mac(2)), gone: Some(mac(1)), loser: None })
        );
        assert!(bind(&mut table, Q, (mac(1), None), 1).is_ok(), "the old one is free");
    }

    #[test]
    fn a_port_has_as_many_macs_and_addresses_as_it_may_and_loses_the_oldest() {
        let mut table = Bindings::default();
        for last in 1..=3 {
            bind(&mut table, P, (mac(last), ip(10 + last)), 2).unwrap();
        }
        let pairs = [(mac(2), None), (mac(2), ip(12)), (mac(3), None), (mac(3), ip(13))];
        assert_eq!(table.of(P), pairs);
        for last in 20..26 {
            bind(&mut table, P, (mac(3), ip(last)), 2).unwrap();
        }
        let of_third: Vec<_> = table.of(P).iter().filter(|pair| pair.0 == mac(3)).collect();
        let last_four = [22, 23, 24, 25].map(|last| (mac(3), ip(last)));
        assert_eq!(of_third[1..], last_four.each_ref()[..]);
        assert!(bind(&mut table, Q, (mac(9), ip(20)), 2).is_ok(), "what it lost is free");
    }

    #[test]
    fn addresses_change_at_a_bounded_rate() {
        let (mut table, mut now) = (Bindings::default(), Instant::now());
        let mut ask = |last: u8, now| table.bind(P, LAN, rules(1), (mac(last), None), NOBODYS, now);
        for last in 0..32 {
            assert!(ask(last, now).is_ok());
        }
        assert_eq!(ask(40, now), Err(ErrorCode::TooFast));
        assert_eq!(ask(31, now), Ok(None), "what it has costs nothing");
        now += Duration::from_secs(1);
        assert!(ask(40, now).is_ok());
        assert_eq!(ask(41, now), Err(ErrorCode::TooFast));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_no_address_has_two_ports_and_what_is_released_is_free(
            asked in proptest::collection::vec((0u32..4, 0u8..5, 0u8..8, 0u8..2, 0usize..3), 0..120)
        ) {
            let (mut table, now) = (Bindings::default(), Instant::now());
            for (port, mac_, ip_, room, max_macs) in asked {
                let (port, lan) = (PortId(port + 10 * u32::from(room)), Lan { network: 0, room: room.into() });
                if mac_ == 4 {
                    table.release(port);
                }
                let address = ip(ip_).filter(|_| ip_ > 1);
                let asked = table.bind(port, lan, rules(max_macs), (mac(mac_), address), |owner| owner.0.is_multiple_of(2), now);
                if let Ok(Some(change)) = &asked {
                    assert!(change.pairs.contains(&(mac(mac_), address)));
                    assert!(change.gone.is_none_or(|gone| change.pairs.iter().all(|pair| pair.0 != gone)));
                }
                let mut owned = std::collections::HashMap::new();
                for (port, held) in &table.ports {
                    let macs = held.pairs.iter().filter(|pair| pair.1.is_none()).count();
                    assert!(macs <= 2 && held.pairs.len() <= macs * (1 + ADDRESSES));
                    for one in held.pairs.iter().flat_map(addresses) {
                        let before = owned.insert((held.lan, one), *port);
                        assert!(before.is_none_or(|before| before == *port));
                    }
                }
                assert_eq!(owned, table.owners);
            }
            for port in 0..20 {
                table.release(PortId(port));
            }
            assert!(table.owners.is_empty() && table.ports.is_empty());
        }
    }

    #[test]
    fn the_gateways_addresses_are_free_for_no_number_of_macs() {
        let mut table = Bindings::default();
        let gateway = rules(0).gateway_mac;
        assert_eq!(bind(&mut table, P, (gateway, ip(9)), 64), Err(ErrorCode::NotAllowed));
        assert!(bind(&mut table, P, (mac(1), ip(9)), 0).is_ok(), "at least one");
    }
}
