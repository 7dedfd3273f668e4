//! Every message in every state of RFC 2131.

use super::*;
use crate::dhcp::pool::Refusal;
use crate::dhcp::request::Malformed;

#[test]
fn discover_is_offered_the_first_address_with_every_option() {
    let mut server = server("192.168.86.0/24");
    let answer = ask(&mut server, 0, 1, &Ask::discover(1)).unwrap();
    assert_eq!(answer.kind(), MessageType::Offer);
    assert_eq!(answer.message.xid(), 0x1234_5678);
    assert_eq!(answer.message.chaddr(), mac(1).0);
    assert_eq!(answer.message.yiaddr(), address(2));
    assert_eq!((answer.mac, answer.to), (mac(1), address(2)));
    for option in [
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![address(1)]),
        DhcpOption::DomainNameServer(vec![address(1)]),
        DhcpOption::DomainName("guests.example".to_owned()),
        DhcpOption::InterfaceMtu(1500),
        DhcpOption::BroadcastAddr(address(255)),
        DhcpOption::AddressLeaseTime(86_400),
        DhcpOption::ServerIdentifier(address(1)),
        DhcpOption::Renewal(43_200),
        DhcpOption::Rebinding(75_600),
    ] {
        assert!(answer.has(&option), "{option:?}");
    }
    assert!(!answer.options().contains(OptionCode::Hostname));
}

#[test]
fn no_name_server_is_announced_when_there_is_none() {
    let mut config = config("192.168.86.0/24");
    config.nameservers.clear();
    config.domain_name = None;
    let mut server = Server::new(config, Vec::new());
    let answer = ask(&mut server, 0, 1, &Ask::discover(1)).unwrap();
    assert!(!answer.options().contains(OptionCode::DomainNameServer));
    assert!(!answer.options().contains(OptionCode::DomainName));
}

#[test]
fn host_name_and_client_identifier_come_back() {
    let mut server = server("192.168.86.0/24");
    let id = DhcpOption::ClientIdentifier(vec![1, 2, 3]);
    let name = DhcpOption::Hostname("guest-1".to_owned());
    let answer =
        ask(&mut server, 0, 1, &Ask::discover(1).with(id.clone()).with(name.clone())).unwrap();
    assert!(answer.has(&id) && answer.has(&name));
    let evil = DhcpOption::Hostname("a\nb".to_owned());
    let answer = ask(&mut server, 0, 1, &Ask::discover(1).with(evil)).unwrap();
    assert!(!answer.options().contains(OptionCode::Hostname));
}

#[test]
fn the_longest_answer_stays_within_what_every_client_takes() {
    let mut config = config("192.168.86.0/24");
    config.domain_name = Some("d".repeat(255));
    config.nameservers = vec![address(1); 100];
    let mut server = Server::new(config, Vec::new());
    let named = Ask::discover(1).with(DhcpOption::Hostname("h".repeat(63)));
    let answer = ask(&mut server, 0, 1, &named).unwrap();
    assert!(answer.has(&DhcpOption::DomainNameServer(vec![address(1); 8])));
    let id = DhcpOption::ClientIdentifier(vec![7; 255]);
    let answer = ask(&mut server, 0, 1, &named.with(id.clone())).unwrap();
    assert!(answer.has(&id));
    assert!(answer.has(&DhcpOption::Router(vec![address(1)])));
}

#[test]
fn broadcast_flag_is_honoured_and_copied() {
    let mut server = server("192.168.86.0/24");
    let answer = ask(&mut server, 0, 1, &Ask::discover(1).broadcast()).unwrap();
    assert_eq!((answer.mac, answer.to), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    assert!(answer.message.flags().broadcast());
}

#[test]
fn selecting_request_gets_the_lease_and_is_logged() {
    let mut server = server("192.168.86.0/24");
    offered(&mut server, 0, 1, 1);
    let question = Ask::selecting(1, address(2)).with(DhcpOption::Hostname("box".to_owned()));
    let outcome = tell(&mut server, 5, 1, &question);
    let answer = Answer::parse(&outcome.reply.unwrap());
    assert_eq!(answer.kind(), MessageType::Ack);
    assert_eq!((answer.mac, answer.to), (mac(1), address(2)));
    assert!(answer.has(&DhcpOption::AddressLeaseTime(86_400)));
    let lease = outcome.lease.unwrap();
    assert_eq!((lease.address, lease.mac, lease.expiry), (address(2), mac(1), NOW + 5 + 86_400));
    let text = outcome.event.unwrap().to_string();
    assert_eq!(text, "dhcp: leased mac=02:22:00:00:00:01 address=192.168.86.2 host_name=box");
}

#[test]
fn selecting_request_for_an_address_that_was_not_offered_is_refused() {
    let mut server = server("192.168.86.0/24");
    offered(&mut server, 0, 1, 1);
    let outcome = tell(&mut server, 0, 1, &Ask::selecting(1, address(9)));
    let answer = Answer::parse(&outcome.reply.unwrap());
    assert_eq!(answer.kind(), MessageType::Nak);
    assert_eq!((answer.mac, answer.to), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    assert_eq!(answer.message.yiaddr(), NONE);
    assert_eq!(answer.message_len, 300, "padded for BOOTP");
    assert!(!answer.options().contains(OptionCode::AddressLeaseTime));
    assert_eq!(
        outcome.event,
        Some(Event::Refused { mac: mac(1), address: address(9), why: Refusal::HasAnother })
    );
    assert_eq!(outcome.lease, None);
}

#[test]
fn request_to_another_server_is_silent_and_frees_the_offer() {
    let mut server = server("192.168.86.0/24");
    offered(&mut server, 0, 1, 1);
    let other = DhcpOption::ServerIdentifier(address(77));
    let question = Ask::init_reboot(1, address(2)).with(other);
    assert_eq!(tell(&mut server, 0, 1, &question), Outcome::default());
    assert_eq!(offered(&mut server, 0, 2, 2), Some(address(2)));
}

#[test]
fn init_reboot_keeps_its_address() {
    let mut server = server("192.168.86.0/24");
    assert_eq!(lease(&mut server, 0, 1, 1), address(2));
    let answer = ask(&mut server, 100, 1, &Ask::init_reboot(1, address(2))).unwrap();
    assert_eq!(answer.kind(), MessageType::Ack);
    assert_eq!(answer.to, address(2));
}

#[test]
fn init_reboot_with_a_wrong_or_taken_address_is_refused() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    for (wrong, why) in [
        (Ipv4Addr::new(10, 0, 2, 15), Refusal::OutsidePool),
        (address(1), Refusal::OutsidePool),
        (address(255), Refusal::OutsidePool),
        (address(0), Refusal::OutsidePool),
        (address(2), Refusal::Taken),
    ] {
        let outcome = tell(&mut server, 0, 2, &Ask::init_reboot(2, wrong));
        assert_eq!(Answer::parse(&outcome.reply.unwrap()).kind(), MessageType::Nak, "{wrong}");
        assert_eq!(outcome.event, Some(Event::Refused { mac: mac(2), address: wrong, why }));
    }
}

#[test]
fn client_that_outlived_the_servers_memory_keeps_a_free_address() {
    let mut server = server("192.168.86.0/24");
    for (number, question) in
        [(1, Ask::init_reboot(1, address(40))), (2, Ask::renewing(2, address(41)))]
    {
        let answer = ask(&mut server, 0, number, &question).unwrap();
        assert_eq!(answer.kind(), MessageType::Ack);
    }
    assert_eq!(lease(&mut server, 0, 3, 3), address(2), "sequence is not disturbed");
}

#[test]
fn renewing_is_answered_to_the_clients_address() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    let outcome = tell(&mut server, 43_200, 1, &Ask::renewing(1, address(2)).broadcast());
    let answer = Answer::parse(&outcome.reply.unwrap());
    assert_eq!(answer.kind(), MessageType::Ack);
    assert_eq!((answer.mac, answer.to), (mac(1), address(2)));
    assert_eq!(answer.message.ciaddr(), address(2));
    assert_eq!(outcome.event, Some(Event::Renewed { mac: mac(1), address: address(2) }));
    assert_eq!(outcome.lease.unwrap().expiry, NOW + 43_200 + 86_400);
}

#[test]
fn rebinding_is_answered_and_a_foreign_address_refused_by_broadcast() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    let answer = ask(&mut server, 75_600, 1, &Ask::rebinding(1, address(2))).unwrap();
    assert_eq!((answer.kind(), answer.to), (MessageType::Ack, address(2)));
    let stale = Ask::rebinding(2, Ipv4Addr::new(10, 0, 2, 15));
    let answer = ask(&mut server, 75_600, 2, &stale).unwrap();
    assert_eq!((answer.kind(), answer.to), (MessageType::Nak, Ipv4Addr::BROADCAST));
    assert_eq!(answer.message.ciaddr(), NONE);
}

#[test]
fn a_renewal_without_host_name_does_not_forget_it() {
    let mut server = server("192.168.86.0/24");
    let named = Ask::selecting(1, address(2)).with(DhcpOption::Hostname("box".to_owned()));
    tell(&mut server, 0, 1, &named);
    let lease = tell(&mut server, 1, 1, &Ask::renewing(1, address(2))).lease.unwrap();
    assert_eq!(lease.host_name.unwrap().as_str(), "box");
}

#[test]
fn release_is_heeded_from_its_owner_only() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    let ignored = Outcome::default();
    assert_eq!(tell(&mut server, 1, 2, &Ask::release(1, address(2))), ignored, "other port");
    assert_eq!(tell(&mut server, 1, 1, &Ask::release(2, address(2))), ignored, "other MAC");
    assert_eq!(tell(&mut server, 1, 1, &Ask::release(1, address(3))), ignored, "other address");
    let outcome = tell(&mut server, 1, 1, &Ask::release(1, address(2)));
    assert_eq!(outcome.reply, None);
    assert_eq!(outcome.event, Some(Event::Released { mac: mac(1), address: address(2) }));
    assert_eq!(outcome.lease.unwrap().expiry, NOW + 1);
    assert!(server.pool().live().is_empty());
    assert_eq!(offered(&mut server, 2, 1, 1), Some(address(2)), "remembered");
}

#[test]
fn declined_address_is_set_aside_for_ten_minutes() {
    let mut server = server("192.168.86.0/24");
    lease(&mut server, 0, 1, 1);
    let strangers = tell(&mut server, 0, 2, &Ask::decline(2, address(2)));
    assert_eq!(strangers, Outcome::default());
    let outcome = tell(&mut server, 0, 1, &Ask::decline(1, address(2)));
    assert_eq!(outcome.event, Some(Event::Declined { mac: mac(1), address: address(2) }));
    assert_eq!(outcome.reply, None);
    assert_eq!(offered(&mut server, 0, 1, 1), Some(address(3)));
    assert_eq!(offered(&mut server, 599, 2, 2), Some(address(3)));
    assert_eq!(offered(&mut server, 600, 3, 3), Some(address(2)));
}

#[test]
fn inform_is_answered_with_parameters_and_no_lease() {
    let mut server = server("192.168.86.0/24");
    let question = Ask::new(MessageType::Inform, mac(1)).ciaddr(address(200));
    let outcome = tell(&mut server, 0, 1, &question);
    let answer = Answer::parse(&outcome.reply.unwrap());
    assert_eq!((answer.kind(), answer.to), (MessageType::Ack, address(200)));
    assert_eq!(answer.message.yiaddr(), NONE);
    assert!(answer.options().contains(OptionCode::DomainNameServer));
    for code in [OptionCode::AddressLeaseTime, OptionCode::Renewal, OptionCode::Rebinding] {
        assert!(!answer.options().contains(code));
    }
    assert!(server.pool().live().is_empty());
    let foreign = Ask::new(MessageType::Inform, mac(1)).ciaddr(Ipv4Addr::new(10, 0, 2, 15));
    assert_eq!(tell(&mut server, 0, 1, &foreign), Outcome::default());
}

#[test]
fn what_is_not_for_this_server_is_ignored() {
    let mut server = server("192.168.86.0/24");
    let mut relayed = Ask::discover(1);
    relayed.message.set_giaddr(address(9));
    assert_eq!(tell(&mut server, 0, 1, &relayed), Outcome::default());
    let mut elsewhere = Ask::renewing(1, address(2));
    elsewhere.to = Ipv4Addr::new(10, 0, 2, 2);
    assert_eq!(tell(&mut server, 0, 1, &elsewhere), Outcome::default());
    for kind in [MessageType::Offer, MessageType::Ack, MessageType::Nak, MessageType::LeaseQuery] {
        assert_eq!(tell(&mut server, 0, 1, &Ask::new(kind, mac(1))), Outcome::default());
    }
    let mut bootp = Ask::discover(1);
    bootp.message.opts_mut().clear();
    assert_eq!(tell(&mut server, 0, 1, &bootp), Outcome::default());
}

#[test]
fn malformed_messages_are_named() {
    let mut server = server("192.168.86.0/24");
    let good = Ask::discover(1).frame();
    // Offsets: IPv4 at 14, UDP at 34, message at 42.
    let cases: [(&[(usize, u8)], Malformed); 9] = [
        (&[(14, 0x44)], Malformed::Ip),
        (&[(16, 0xff)], Malformed::Ip),
        (&[(16, 0), (17, 19)], Malformed::Ip),
        (&[(20, 0x20)], Malformed::Fragment),
        (&[(38, 0xff)], Malformed::Udp),
        (&[(38, 0), (39, 100)], Malformed::TooShort),
        (&[(42, 2)], Malformed::NotARequest),
        (&[(44, 255)], Malformed::HardwareAddress),
        (&[(70, 0xff)], Malformed::HardwareAddress),
    ];
    for (changes, error) in cases {
        let mut frame = good.clone();
        for (offset, byte) in changes {
            frame[*offset] = *byte;
        }
        let outcome = server.handle(NOW, PortKey(1), &frame);
        assert_eq!(outcome, Outcome { event: Some(Event::Malformed(error)), ..Outcome::default() });
    }
    let nameless = Ask::new(MessageType::Request, mac(1));
    let event = tell(&mut server, 0, 1, &nameless).event;
    assert_eq!(event, Some(Event::Malformed(Malformed::NoAddress)));
    assert!(server.pool().live().is_empty());
}

#[test]
fn options_that_cannot_be_read_hide_no_others() {
    let mut server = server("192.168.86.0/24");
    let mut frame = Ask::discover(1).frame();
    // Behind the magic number: a host name that is not UTF-8, a route of 200 bits, and then what
    // matters; last, an option that claims more than there is.
    let options = frame.split_off(42 + 240);
    for option in [&[12, 2, 0xff, 0xfe][..], &[121, 5, 200, 1, 2, 3, 4]] {
        frame.extend(option);
    }
    frame.extend(options);
    assert_eq!(frame.pop(), Some(255));
    frame.extend([50, 200, 1]);
    let message = frame[42..].to_vec();
    let frame = frame_of(mac(1), NONE, Ipv4Addr::BROADCAST, &message);
    let outcome = server.handle(NOW, PortKey(1), &frame);
    assert_eq!(Answer::parse(&outcome.reply.unwrap()).kind(), MessageType::Offer);
}

#[test]
fn options_that_overflow_into_the_file_field_are_found() {
    let mut server = server("192.168.86.0/24");
    let mut question = Ask::discover(1).with(DhcpOption::OptionOverload(1));
    question.message.set_fname(&[50, 4, 192, 168, 86, 99, 255]);
    let answer = ask(&mut server, 0, 1, &question).unwrap();
    assert_eq!(answer.message.yiaddr(), address(99));
}

#[test]
fn padding_behind_the_packet_does_not_matter() {
    let mut server = server("192.168.86.0/24");
    let mut frame = Ask::discover(1).frame();
    frame.extend([0xaa; 30]);
    assert!(server.handle(NOW, PortKey(1), &frame).reply.is_some());
}
