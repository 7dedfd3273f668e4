//! Who gets which address.

use super::*;

#[test]
fn addresses_are_given_in_sequence() {
    let mut server = server("192.168.86.0/24");
    for number in 0..253 {
        let last = u8::try_from(number + 2).unwrap();
        assert_eq!(lease(&mut server, 0, number.into(), number), address(last));
    }
}

#[test]
fn a_mac_keeps_its_address_after_its_lease_has_ended() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    let mine = lease(&mut server, 0, 2, 2);
    assert_eq!(lease(&mut server, 100_000, 3, 3), address(4), "others' memories are spared");
    assert_eq!(lease(&mut server, 200_000, 9, 2), mine);
}

#[test]
fn a_wish_is_granted_if_nobody_ever_had_the_address() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    let wish =
        |number, last| Ask::discover(number).with(DhcpOption::RequestedIpAddress(address(last)));
    let mut granted = |number: u32, last| {
        ask(&mut server, 0, number.into(), &wish(number, last)).unwrap().message.yiaddr()
    };
    assert_eq!(granted(2, 77), address(77));
    assert_eq!(granted(3, 77), address(3), "offered to another");
    assert_eq!(granted(4, 2), address(4), "leased to another");
    assert_eq!(granted(5, 1), address(5), "the gateway's");
}

#[test]
fn an_offer_holds_its_address_for_a_minute() {
    let mut server = server("192.168.86.0/24");
    assert_eq!(offered(&mut server, 0, 1, 1), Some(address(2)));
    assert_eq!(offered(&mut server, 59, 2, 2), Some(address(3)));
    assert_eq!(offered(&mut server, 60, 3, 3), Some(address(2)));
    let late = ask(&mut server, 60, 1, &Ask::selecting(1, address(2))).unwrap();
    assert_eq!(late.kind(), MessageType::Nak);
}

#[test]
fn a_port_that_wants_more_gets_its_own_oldest_back() {
    let mut server = server("192.168.86.0/24");
    for number in 0..4 {
        lease(&mut server, number.into(), 1, number);
    }
    ask(&mut server, 5, 1, &Ask::renewing(0, address(2))).unwrap();
    assert_eq!(lease(&mut server, 6, 1, 10), address(3), "heard of longest ago");
    let renewal = ask(&mut server, 7, 1, &Ask::renewing(1, address(3))).unwrap();
    assert_eq!(renewal.kind(), MessageType::Nak);
    assert_eq!(lease(&mut server, 8, 2, 20), address(6));
}

#[test]
fn a_guest_cannot_empty_the_pool() {
    let mut server = server("192.168.86.0/24");
    for number in 0..5_000 {
        offered(&mut server, 0, 1, number).unwrap();
    }
    for number in 5_000..6_000 {
        lease(&mut server, 0, 1, number);
        let wish = address(u8::try_from(number % 250 + 3).unwrap());
        ask(&mut server, 0, 1, &Ask::init_reboot(number + 10_000, wish)).unwrap();
    }
    assert_eq!(server.pool().live().len(), 4);
    assert_eq!(lease(&mut server, 0, 2, 100_000), address(6), "nothing is left behind");
}

#[test]
fn a_guest_that_releases_under_many_macs_does_not_push_out_others_memories() {
    let mut server = server("192.168.86.0/24");
    let mine = lease(&mut server, 0, 1, 1);
    tell(&mut server, 1, 1, &Ask::release(1, mine));
    for number in 100..1_000 {
        let address = lease(&mut server, 2, 2, number);
        assert!(tell(&mut server, 2, 2, &Ask::release(number, address)).lease.is_some());
    }
    assert_eq!(lease(&mut server, 3, 3, 1), mine);
}

#[test]
fn frames_from_behind_a_bridge_count_towards_the_ports_quota() {
    let mut server = server("192.168.86.0/24");
    for number in 0..6 {
        let mut question = Ask::discover(number);
        question.source = mac(999);
        assert!(ask(&mut server, 0, 1, &question).is_some());
    }
    assert_eq!(server.pool().live().len(), 4);
}

#[test]
fn exhausted_pool_is_silent_and_says_so_in_the_log() {
    let mut server = server("192.168.86.0/29");
    for number in 0..5 {
        lease(&mut server, 0, number.into(), number);
    }
    let outcome = tell(&mut server, 0, 9, &Ask::discover(9));
    assert_eq!(outcome.reply, None);
    assert_eq!(outcome.event, Some(Event::Exhausted { mac: mac(9) }));
}

#[test]
fn lease_ended_longest_ago_is_given_to_somebody_else_first() {
    let mut server = server("192.168.86.0/29");
    for number in 0..5 {
        lease(&mut server, 0, number.into(), number);
    }
    tell(&mut server, 10, 3, &Ask::release(3, address(5)));
    tell(&mut server, 20, 1, &Ask::release(1, address(3)));
    assert_eq!(lease(&mut server, 30, 11, 11), address(5));
    assert_eq!(lease(&mut server, 30, 12, 12), address(3));
    assert_eq!(offered(&mut server, 30, 3, 3), None, "its memory is gone");
}

#[test]
fn leases_end_ten_minutes_after_their_port_has_closed() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    server.port_closed(NOW + 100, PortKey(1));
    server.pool().check();
    assert_eq!(server.pool().live(), [(address(2), mac(1), None, NOW + 700)]);
    server.port_closed(NOW + 700, PortKey(7));
    assert!(server.pool().live().is_empty());
    assert_eq!(lease(&mut server, 800, 2, 1), address(2));
}

#[test]
fn closing_a_port_withdraws_its_offers_and_never_lengthens_a_lease() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    offered(&mut server, 86_300, 1, 2);
    server.port_closed(NOW + 86_300, PortKey(1));
    assert_eq!(server.pool().live(), [(address(2), mac(1), None, NOW + 86_400)]);
}

#[test]
fn leases_of_closed_ports_are_taken_after_two_minutes_when_nothing_else_is_left() {
    let mut server = server("192.168.86.0/29");
    for number in 0..5 {
        lease(&mut server, 0, number.into(), number);
    }
    server.port_closed(NOW + 10, PortKey(4));
    server.port_closed(NOW + 20, PortKey(2));
    assert_eq!(offered(&mut server, 130, 9, 9), None);
    assert_eq!(offered(&mut server, 131, 9, 9), Some(address(6)), "oldest first");
    assert_eq!(offered(&mut server, 131, 10, 10), None);
    assert_eq!(lease(&mut server, 150, 11, 2), address(4), "its owner came back");
}

#[test]
fn a_client_that_reconnects_takes_its_lease_to_its_new_port() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    assert_eq!(lease(&mut server, 10, 2, 1), address(2));
    server.port_closed(NOW + 20, PortKey(1));
    let live = server.pool().live();
    assert_eq!(live, [(address(2), mac(1), Some(PortKey(2)), NOW + 10 + 86_400)]);
}

#[test]
fn a_lease_that_moves_to_a_full_port_costs_that_port_its_oldest() {
    let mut server = server("192.168.86.0/24");
    for number in 0..4 {
        lease(&mut server, number.into(), 1, number);
    }
    let fifth = lease(&mut server, 4, 2, 4);
    let answer = ask(&mut server, 5, 1, &Ask::rebinding(4, fifth)).unwrap();
    assert_eq!(answer.kind(), MessageType::Ack);
    let live = server.pool().live();
    assert_eq!(live.len(), 4);
    assert!(live.iter().all(|(address, ..)| *address != self::address(2)));
}

#[test]
fn only_four_declines_of_a_port_are_believed() {
    let mut server = server("192.168.86.0/24");
    for _ in 0..4 {
        let address = lease(&mut server, 0, 1, 1);
        assert!(tell(&mut server, 0, 1, &Ask::decline(1, address)).event.is_some());
    }
    let fifth = lease(&mut server, 0, 1, 1);
    assert_eq!(fifth, address(6));
    assert_eq!(tell(&mut server, 0, 1, &Ask::decline(1, fifth)), Outcome::default());
    assert_eq!(offered(&mut server, 0, 1, 1), Some(fifth));
}

#[test]
fn sessions_that_come_and_decline_do_not_set_the_pool_aside() {
    let mut server = server("192.168.86.0/24");
    for port in 0..500 {
        let number = u32::try_from(port).unwrap();
        let address = lease(&mut server, 0, port, number);
        tell(&mut server, 0, port, &Ask::decline(number, address));
        server.port_closed(NOW, PortKey(port));
    }
    assert!(offered(&mut server, 0, 1000, 1000).is_some());
}

#[test]
fn leases_of_an_earlier_run_are_kept_and_their_ends_are_known() {
    let earlier = |number, last, expiry| Lease {
        address: address(last),
        mac: mac(number),
        expiry,
        host_name: None,
    };
    let leases = vec![
        earlier(1, 9, NOW + 500),
        earlier(2, 10, NOW - 500),
        earlier(3, 10, NOW - 600),
        earlier(1, 11, NOW + 400),
        Lease { address: Ipv4Addr::new(10, 0, 0, 1), ..earlier(4, 1, NOW) },
    ];
    let mut server = Server::new(config("192.168.86.0/24"), leases);
    assert_eq!(lease(&mut server, 0, 3, 3), address(2));
    server.pool().check();
    assert_eq!(lease(&mut server, 0, 2, 2), address(10));
    assert_eq!(lease(&mut server, 0, 1, 1), address(9));
    assert_eq!(offered(&mut server, 0, 4, 4), Some(address(3)));
}

#[test]
fn smallest_network_serves_its_one_guest() {
    let mut server = server("192.168.86.0/30");
    assert_eq!(lease(&mut server, 0, 1, 1), address(2));
    assert_eq!(offered(&mut server, 0, 2, 2), None);
}

#[test]
fn a_large_network_answers_a_burst_without_walking_its_pool() {
    let mut server = Server::new(config("10.0.0.0/8"), Vec::new());
    let mut given = std::collections::HashSet::new();
    for number in 0..20_000_u32 {
        let frame = Ask::discover(number).frame();
        let outcome = server.handle(NOW, PortKey(u64::from(number) / 4), &frame);
        let answer = Answer::parse(&outcome.reply.unwrap());
        assert!(given.insert(answer.message.yiaddr()));
    }
    server.pool().check();
    assert!(given.contains(&Ipv4Addr::new(10, 0, 78, 33)));
}

/// Whether a guest may use an address, which it then does.
fn uses(server: &mut Server, port: u64, number: u32, last: u8) -> bool {
    let may = server.may_use(NOW, PortKey(port), mac(number), address(last));
    server.used(NOW, PortKey(port), mac(number), address(last));
    may
}

#[test]
fn a_guest_whose_connection_was_lost_and_who_does_not_notice_keeps_its_lease() {
    let mut server = server("192.168.86.0/30");
    assert_eq!(lease(&mut server, 0, 1, 1), address(2));
    server.port_closed(NOW + 10, PortKey(1));
    // It goes on by another port, and asks nobody.
    server.used(NOW + 20, PortKey(2), mac(1), address(2));
    server.pool().check();
    assert!(ask(&mut server, 3000, 3, &Ask::discover(3)).is_none(), "the only address is in use");
    assert!(!server.may_use(NOW + 3000, PortKey(3), mac(3), address(2)));
    // Also one who was away for so long that its lease has ended.
    server.port_closed(NOW + 3010, PortKey(2));
    server.pool().check();
    server.used(NOW + 9000, PortKey(4), mac(1), address(2));
    server.pool().check();
    assert!(ask(&mut server, 9010, 3, &Ask::discover(3)).is_none(), "it is in use again");
}

#[test]
fn asking_whether_an_address_may_be_used_changes_nothing() {
    let mut server = server("192.168.86.0/30");
    assert_eq!(lease(&mut server, 0, 1, 1), address(2));
    server.port_closed(NOW, PortKey(1));
    assert!(server.may_use(NOW, PortKey(2), mac(2), address(2)));
    assert_eq!(lease(&mut server, 1, 3, 1), address(2), "its lease is remembered");
    server.pool().check();
}

#[test]
fn an_address_that_a_guest_uses_without_a_lease_is_given_to_nobody_else() {
    let mut server = server("192.168.86.0/29");
    assert!(uses(&mut server, 1, 1, 2));
    assert!(uses(&mut server, 1, 1, 3));
    assert!(!uses(&mut server, 2, 2, 2), "it is another's");
    assert_eq!(lease(&mut server, 0, 2, 2), address(4), "the first that is free");
    assert_eq!(lease(&mut server, 0, 1, 1), address(5));
    server.port_closed(NOW, PortKey(1));
    assert!(uses(&mut server, 2, 3, 2), "its user has left");
    server.pool().check();
}

#[test]
fn a_guest_may_lease_the_address_that_it_uses_and_none_may_use_anothers_lease() {
    let mut server = server("192.168.86.0/29");
    assert!(uses(&mut server, 1, 1, 4));
    let kept = ask(&mut server, 0, 1, &Ask::init_reboot(1, address(4))).unwrap();
    assert_eq!(kept.kind(), MessageType::Ack);
    assert_eq!(lease(&mut server, 0, 2, 2), address(2));
    assert!(!uses(&mut server, 1, 1, 2));
    assert!(uses(&mut server, 2, 2, 2), "it has it");
    assert!(uses(&mut server, 1, 7, 1), "not the pool's business");
    server.pool().check();
}
