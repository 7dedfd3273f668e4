use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SECOND: Duration = Duration::from_secs(1);

fn door(max_clients: u32, rate: u32, ban_after: u32, ban_time: u32) -> Door {
    let (settings, _) = wsnic_proto::resolve(
        &wsnic_proto::ConfFile::default(),
        &wsnic_proto::conf::Layer::new(),
        &wsnic_proto::Facts::default(),
    )
    .unwrap();
    Door {
        max_clients_per_address: max_clients,
        handshake_rate: rate,
        ban_after,
        ban_time,
        ..settings.door
    }
}

fn addresses(max_clients: u32, rate: u32, ban_after: u32, ban_time: u32) -> Rc<Addresses> {
    Rc::new(Addresses::new(&door(max_clients, rate, ban_after, ban_time)))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One of a million million addresses, each in a /64 of its own.
fn stranger(number: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(0x2001_0db8_0000_0000 + number) << 64 | 1).into()
}

#[test]
fn five_seconds_of_the_rate_come_at_once_and_then_the_rate() {
    let (addresses, now) = (addresses(0, 20, 10, 600), Instant::now());
    let came = (0..200).filter(|_| addresses.arrives(ip("192.0.2.1"), now).is_ok()).count();
    assert_eq!(came, 100);
    assert_eq!(addresses.arrives(ip("192.0.2.1"), now), Err(Turned::TooFast));
    assert_eq!(addresses.arrives(ip("192.0.2.2"), now), Ok(()), "another one");
    let later = now + SECOND;
    let came = (0..200).filter(|_| addresses.arrives(ip("192.0.2.1"), later).is_ok()).count();
    assert_eq!(came, 20);
}

#[test]
fn a_ban_begins_with_the_last_wrong_proof_and_each_attempt_begins_it_anew() {
    let (addresses, start) = (addresses(0, 0, 3, 600), Instant::now());
    let (bad, at) = (ip("192.0.2.1"), |seconds| start + SECOND * seconds);
    assert!(!addresses.failed(bad, at(0)) && !addresses.failed(bad, at(300)));
    assert_eq!(addresses.arrives(bad, at(301)), Ok(()));
    assert!(addresses.failed(bad, at(302)));
    assert_eq!(addresses.bans(at(302)), [(bad, SECOND * 600)]);
    // As v86 does, every 10 s for ever.
    for attempt in 1..1000 {
        assert_eq!(addresses.arrives(bad, at(302 + 10 * attempt)), Err(Turned::Banned));
    }
    let last = 302 + 9990;
    assert_eq!(addresses.arrives(bad, at(last + 600)), Ok(()));
    assert!(addresses.bans(at(last + 600)).is_empty());
    assert!(!addresses.failed(bad, at(last + 601)), "counted from one again");
}

#[test]
fn wrong_proofs_that_are_far_apart_lead_to_no_ban() {
    let (addresses, start) = (addresses(0, 0, 2, 600), Instant::now());
    for attempt in 0..100 {
        assert!(!addresses.failed(ip("192.0.2.1"), start + SECOND * 600 * attempt));
    }
}

#[test]
fn who_is_pardoned_may_come_at_once() {
    let (addresses, now) = (addresses(0, 20, 1, 600), Instant::now());
    let bad = ip("2001:db8::1");
    assert!(addresses.failed(bad, now));
    assert!(!addresses.pardon(ip("2001:db8:0:1::1"), now), "somebody else");
    assert!(addresses.pardon(ip("2001:db8::ffff"), now), "the same /64");
    assert_eq!(addresses.arrives(bad, now), Ok(()));
    assert!(!addresses.pardon(bad, now));
}

#[test]
fn a_slash_64_is_one_address_and_so_is_a_mapped_one() {
    let (addresses, now) = (addresses(2, 0, 1, 600), Instant::now());
    let _first = addresses.enters(ip("2001:db8::1")).unwrap();
    let _second = addresses.enters(ip("2001:db8::2:3:4:5")).unwrap();
    assert_eq!(addresses.enters(ip("2001:db8::9")).unwrap_err(), TooMany);
    assert!(addresses.enters(ip("2001:db8:0:1::9")).is_ok());
    assert!(addresses.failed(ip("::ffff:192.0.2.1"), now));
    assert_eq!(addresses.arrives(ip("192.0.2.1"), now), Err(Turned::Banned));
    assert_eq!(addresses.arrives(ip("192.0.2.2"), now), Ok(()));
}

#[test]
fn who_leaves_makes_room() {
    let addresses = addresses(1, 0, 1, 600);
    let entered = addresses.enters(ip("192.0.2.1")).unwrap();
    assert!(addresses.enters(ip("192.0.2.1")).is_err());
    drop(entered);
    assert!(addresses.enters(ip("192.0.2.1")).is_ok());
    assert_eq!(addresses.clients(ip("192.0.2.1")), 0);
}

#[test]
fn loopback_may_do_all() {
    let (addresses, now) = (addresses(1, 1, 1, 600), Instant::now());
    for text in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
        let entered: Vec<_> = (0..50).map(|_| addresses.enters(ip(text)).unwrap()).collect();
        assert!(!addresses.failed(ip(text), now));
        assert!((0..50).all(|_| addresses.arrives(ip(text), now).is_ok()));
        drop(entered);
    }
    assert_eq!(addresses.known(), 0);
}

#[test]
fn a_ban_outlives_a_flood_from_millions_of_addresses() {
    let (addresses, now) = (addresses(10, 20, 3, 600), Instant::now());
    let bad = ip("192.0.2.1");
    assert_eq!((0..3).filter(|_| addresses.failed(bad, now)).count(), 1);
    let client = addresses.enters(ip("192.0.2.2")).unwrap();
    let half_guessed = ip("192.0.2.3");
    assert_eq!((0..2).filter(|_| addresses.failed(half_guessed, now)).count(), 0);
    for number in 0..1_000_000 {
        assert_eq!(addresses.arrives(stranger(number), now), Ok(()));
    }
    assert_eq!(addresses.known(), MAX_ENTRIES);
    assert_eq!(addresses.arrives(bad, now), Err(Turned::Banned));
    assert_eq!(addresses.clients(ip("192.0.2.2")), 1);
    assert!(addresses.failed(half_guessed, now), "and so do wrong proofs");
    drop(client);
}

#[test]
fn bans_alone_push_out_bans_the_oldest_first_and_never_who_is_inside() {
    let addresses = Rc::new(Addresses::with_room(&door(10, 20, 1, 600), 4));
    let now = Instant::now();
    let entered = addresses.enters(ip("192.0.2.2")).unwrap();
    for number in 0..4 {
        assert!(addresses.failed(stranger(number), now));
    }
    assert_eq!(addresses.bans(now).len(), 3);
    assert_eq!(addresses.arrives(stranger(0), now), Ok(()), "in place of the ban of the next");
    let banned: Vec<_> = (1..4).map(|number| addresses.arrives(stranger(number), now)).collect();
    assert_eq!(banned, [Ok(()), Err(Turned::Banned), Err(Turned::Banned)]);
    assert_eq!(addresses.clients(ip("192.0.2.2")), 1);
    drop(entered);
    // With as many inside as there are entries nothing can be known of others.
    let _inside: Vec<_> = (10..14).map(|n| addresses.enters(stranger(n)).unwrap()).collect();
    assert_eq!(addresses.enters(stranger(20)).unwrap_err(), TooMany);
    assert_eq!(addresses.arrives(stranger(20), now), Ok(()));
    assert!(!addresses.failed(stranger(20), now));
}

#[test]
fn bans_that_are_over_are_given_up_before_failures() {
    let addresses = Rc::new(Addresses::with_room(&door(0, 20, 2, 600), 3));
    let start = Instant::now();
    assert_eq!((0..2).filter(|_| addresses.failed(stranger(0), start)).count(), 1);
    let later = start + SECOND * 700;
    addresses.failed(stranger(1), later);
    addresses.failed(stranger(2), later);
    addresses.failed(stranger(3), later);
    assert!(addresses.failed(stranger(1), later) && addresses.failed(stranger(2), later));
}

#[test]
fn other_limits_hold_from_the_reload_on() {
    let (addresses, now) = (addresses(0, 0, 0, 0), Instant::now());
    let address = ip("192.0.2.1");
    let _entered: Vec<_> = (0..5).map(|_| addresses.enters(address).unwrap()).collect();
    assert!(!addresses.failed(address, now), "nobody is banned");
    addresses.reload(&door(5, 1, 1, 60));
    assert_eq!(addresses.enters(address).unwrap_err(), TooMany);
    assert!(addresses.failed(address, now));
}

/// Something that happens to one of some addresses.
#[derive(Debug, Clone)]
enum Step {
    Arrives(u64),
    Failed(u64),
    Enters(u64),
    Leaves(usize),
    Pardon(u64),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..12).prop_map(Step::Arrives),
        4 => (0_u64..12).prop_map(Step::Failed),
        2 => (0_u64..12).prop_map(Step::Enters),
        2 => any::<usize>().prop_map(Step::Leaves),
        1 => (0_u64..12).prop_map(Step::Pardon),
        3 => (1_u32..20_000).prop_map(Step::Wait),
    ]
}

/// What the documents say of one address, without queues or a bound.
#[derive(Default)]
struct Model {
    clients: u32,
    /// Connections that are still owed, in milliseconds of the rate.
    owed_until: u64,
    window: Option<(u64, u32)>,
    banned_until: u64,
}

const RATE: u32 = 2;
const BAN_AFTER: u32 = 3;
const BAN_MS: u64 = 10_000;
const MAX_CLIENTS: u32 = 2;

impl Model {
    fn arrives(&mut self, now: u64) -> Result<(), Turned> {
        if now < self.banned_until {
            self.banned_until = now + BAN_MS;
            return Err(Turned::Banned);
        }
        let owed = self.owed_until.max(now) + 1000 / u64::from(RATE);
        if owed - now > 5000 {
            return Err(Turned::TooFast);
        }
        self.owed_until = owed;
        Ok(())
    }

    fn failed(&mut self, now: u64) -> bool {
        let (since, count) = match self.window {
            Some((since, count)) if now - since < BAN_MS => (since, count + 1),
            _ => (now, 1),
        };
        let was_banned = now < self.banned_until;
        self.window = Some((since, count));
        if was_banned || count >= BAN_AFTER {
            self.window = None;
            self.banned_until = now + BAN_MS;
            return !was_banned;
        }
        false
    }
}

/// Every entry is in the queue of its class, once, and found by its key.
fn check(addresses: &Addresses) {
    let state = addresses.0.borrow();
    let mut seen = 0;
    for class in [Class::Plain, Class::Failing, Class::Banned, Class::Inside] {
        let (mut slot, mut before) = (state.queues[class as usize].first, NONE);
        while let Some(entry) = state.entries.get(slot) {
            assert_eq!((entry.class, entry.before), (class, before));
            assert_eq!(entry.clients > 0, class == Class::Inside);
            assert_eq!(state.slots.get(&entry.key), Some(&slot));
            (before, slot) = (slot, entry.behind);
            seen += 1;
        }
        assert_eq!(state.queues[class as usize].last, before);
    }
    assert_eq!((seen, seen), (state.entries.len(), state.slots.len()));
    assert!(seen <= state.room);
}

proptest! {
    #[test]
    fn with_room_for_all_it_does_what_the_model_does(
        steps in proptest::collection::vec(step(), 0..200)
    ) {
        let door = door(MAX_CLIENTS, RATE, BAN_AFTER, (BAN_MS / 1000) as u32);
        let addresses = Rc::new(Addresses::with_room(&door, 100));
        let (start, mut now) = (Instant::now(), 0_u64);
        let mut models: BTreeMap<u64, Model> = BTreeMap::new();
        let mut inside = Vec::new();
        for step in steps {
            let at = start + Duration::from_millis(now);
            match step {
                Step::Arrives(n) => prop_assert_eq!(
                    addresses.arrives(stranger(n), at),
                    models.entry(n).or_default().arrives(now)
                ),
                Step::Failed(n) => prop_assert_eq!(
                    addresses.failed(stranger(n), at),
                    models.entry(n).or_default().failed(now)
                ),
                Step::Enters(n) => {
                    let model = models.entry(n).or_default();
                    let entered = addresses.enters(stranger(n));
                    prop_assert_eq!(entered.is_ok(), model.clients < MAX_CLIENTS);
                    if let Ok(entered) = entered {
                        model.clients += 1;
                        inside.push((n, entered));
                    }
                }
                Step::Leaves(index) if !inside.is_empty() => {
                    let (n, entered) = inside.swap_remove(index % inside.len());
                    models.entry(n).or_default().clients -= 1;
                    drop(entered);
                }
                Step::Leaves(_) => {}
                Step::Pardon(n) => {
                    let model = models.entry(n).or_default();
                    prop_assert_eq!(addresses.pardon(stranger(n), at), now < model.banned_until);
                    (model.window, model.banned_until) = (None, 0);
                }
                Step::Wait(ms) => now += u64::from(ms),
            }
            check(&addresses);
            let at = start + Duration::from_millis(now);
            let banned = models.values().filter(|model| now < model.banned_until).count();
            prop_assert_eq!(addresses.bans(at).len(), banned);
        }
    }

    #[test]
    fn with_little_room_it_never_grows_and_forgets_nobody_who_is_inside(
        steps in proptest::collection::vec(step(), 0..300), room in 1_usize..6
    ) {
        let addresses = Rc::new(Addresses::with_room(&door(0, RATE, 2, 10), room));
        let mut now = Instant::now();
        let mut inside: Vec<(u64, Entered)> = Vec::new();
        for step in steps {
            match step {
                Step::Arrives(n) => drop(addresses.arrives(stranger(n), now)),
                Step::Failed(n) => drop(addresses.failed(stranger(n), now)),
                Step::Enters(n) => inside.extend(addresses.enters(stranger(n)).map(|entered| (n, entered))),
                Step::Leaves(index) if !inside.is_empty() => {
                    inside.swap_remove(index % inside.len());
                }
                Step::Leaves(_) => {}
                Step::Pardon(n) => drop(addresses.pardon(stranger(n), now)),
                Step::Wait(ms) => now += Duration::from_millis(ms.into()),
            }
            check(&addresses);
            for n in 0..12 {
                let count = inside.iter().filter(|(who, _)| *who == n).count();
                prop_assert_eq!(addresses.clients(stranger(n)) as usize, count);
            }
        }
    }
}
