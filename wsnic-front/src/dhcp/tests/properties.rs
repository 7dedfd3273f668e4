//! What holds whatever guests do.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

#[derive(Debug, Clone)]
enum Step {
    Use { port: u64, number: u32, last: u8 },
    Send { port: u64, number: u32, kind: u8, address: u8, wish: bool, server: bool },
    Close { port: u64 },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let send = (0_u64..4, 0_u32..12, 1_u8..=8, 0_u8..16, any::<bool>(), any::<bool>()).prop_map(
        |(port, number, kind, address, wish, server)| Step::Send {
            port,
            number,
            kind,
            address,
            wish,
            server,
        },
    );
    prop_oneof![
        12 => send,
        1 => (0_u64..4).prop_map(|port| Step::Close { port }),
        1 => (0_u64..4, 0_u32..6, 0_u8..12).prop_map(|(port, number, last)| Step::Use {
            port,
            number,
            last,
        }),
        2 => (0_u64..400).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

fn play(server: &mut Server, steps: Vec<Step>) {
    let mut now = NOW;
    for step in steps {
        match step {
            Step::Wait { seconds } => now += seconds,
            Step::Close { port } => server.port_closed(now, PortKey(port)),
            Step::Use { port, number, last } => {
                server.used(now, PortKey(port), mac(number), address(last));
                server.pool().check();
            }
            Step::Send { port, number, kind, address: last, wish, server: named } => {
                let mut question = Ask::new(MessageType::from(kind), mac(number));
                // Half of them mean the address that they have.
                let own =
                    server.pool().live().into_iter().find(|(_, mac, ..)| *mac == question.source);
                let named_address = match own {
                    Some((own, ..)) if last % 2 == 0 => own,
                    _ => address(last),
                };
                if wish {
                    question = question.with(DhcpOption::RequestedIpAddress(named_address));
                } else {
                    question = question.ciaddr(named_address);
                }
                if named {
                    question = question.with(DhcpOption::ServerIdentifier(address(1)));
                }
                let outcome = server.handle(now, PortKey(port), &question.frame());
                if let Some(answer) = outcome.reply.map(|bytes| Answer::parse(&bytes)) {
                    check_answer(server, &answer, number, port, now);
                }
            }
        }
        check(server, now);
    }
}

/// What is offered or leased is the asking MAC's, on its port.
fn check_answer(server: &Server, answer: &Answer, number: u32, port: u64, now: u64) {
    let given = answer.message.yiaddr();
    if given.is_unspecified() {
        return;
    }
    let live = server.pool().live();
    let (_, owner, holder, until) = live.iter().find(|(address, ..)| *address == given).unwrap();
    assert_eq!((*owner, *holder), (mac(number), Some(PortKey(port))));
    assert!(*until > now);
}

fn check(server: &Server, now: u64) {
    server.pool().check();
    let live = server.pool().live();
    let plan = plan("192.168.86.0/28");
    let addresses: HashSet<_> = live.iter().map(|(address, ..)| *address).collect();
    let macs: HashSet<_> = live.iter().map(|(_, mac, ..)| *mac).collect();
    assert_eq!(addresses.len(), live.len(), "two leases of one address");
    assert_eq!(macs.len(), live.len(), "two addresses of one MAC");
    assert!(addresses.iter().all(|address| plan.pool_index(*address).is_some()));
    for port in 0..4 {
        let held = live.iter().filter(|(_, _, holder, _)| *holder == Some(PortKey(port))).count();
        assert!(held <= 4, "port {port} holds {held}");
    }
    assert!(live.iter().all(|(.., until)| *until <= now + 86_400 + 400));
}

proptest! {
    #[test]
    fn any_bytes_are_answered_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..700),
    ) {
        let mut server = server("192.168.86.0/28");
        server.handle(NOW, PortKey(1), &bytes);
    }

    #[test]
    fn any_message_behind_good_headers_is_answered_without_panic(
        kind in 0_u8..20,
        fixed in proptest::collection::vec(any::<u8>(), 208),
        options in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut server = server("192.168.86.0/28");
        let head = [1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0];
        let addresses = [0; 16];
        let magic = [99, 130, 83, 99, 53, 1, kind];
        let message =
            [&head[..], &addresses, &mac(1).0, &fixed[..202], &magic, &options].concat();
        let frame = frame_of(mac(1), NONE, Ipv4Addr::BROADCAST, &message);
        if let Some(reply) = server.handle(NOW, PortKey(1), &frame).reply {
            Answer::parse(&reply);
        }
        check(&server, NOW);
    }

    #[test]
    fn any_change_to_a_good_frame_is_answered_without_panic(
        changes in proptest::collection::vec((14_usize..300, any::<u8>()), 1..5),
        len in 0_usize..400,
    ) {
        let mut server = server("192.168.86.0/28");
        let mut frame = Ask::selecting(1, address(2)).frame();
        for (offset, byte) in changes {
            if let Some(place) = frame.get_mut(offset) {
                *place = byte;
            }
        }
        frame.truncate(len.max(14));
        server.handle(NOW, PortKey(1), &frame);
        server.pool().check();
    }

    #[test]
    fn whatever_guests_do_no_two_share_an_address(
        steps in proptest::collection::vec(step(), 1..120),
        earlier in proptest::collection::vec((0_u32..12, 0_u8..20, 0_u64..2000), 0..10),
    ) {
        let earlier = earlier.into_iter().map(|(number, last, end)| Lease {
            address: address(last),
            mac: mac(number),
            expiry: NOW - 1000 + end,
            host_name: None,
        });
        let mut server = Server::new(config("192.168.86.0/28"), earlier.collect());
        play(&mut server, steps);
    }
}
