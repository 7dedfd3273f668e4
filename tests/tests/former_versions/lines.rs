//! The command lines of the three earlier manuals, each with the network that it gives.

/// A command line of a manual.
pub struct Line {
    pub line: &'static str,
    /// wsnic.conf in the working directory.
    pub conf: &'static str,
    pub environment: &'static [(&'static str, &'static str)],
    /// A certificate and its key, where they lie in the working directory.
    pub certificate: Option<(&'static str, &'static str)>,
    /// What is otherwise than without any option; "-" where it is not there.
    pub otherwise: &'static [(&'static str, &'static str)],
    /// Why the earlier version is not asked, if it is not.
    pub ours_alone: Option<&'static str>,
}

/// Such a checkout may not know the option; the same network is compared by another line.
pub const ONLY_SOME: &str = "not every version of that time has the option";
const EMPTY_SERVER: &str = "an empty `dhcp_nameserver=` means the gateway";

const LINE: Line = Line {
    line: "sudo ./wsnic.sh",
    conf: "",
    environment: &[],
    certificate: None,
    otherwise: &[],
    ours_alone: None,
};

/// The network without any option.
pub const PLAIN: &[(&str, &str)] = &[
    ("listeners", "127.0.0.1:8086"),
    ("answer to a GET", "426, Upgrade: websocket, Connection: close, TLS test succeeded, closed"),
    ("bridge", "wsbr0 up 192.168.86.1/24 brd 192.168.86.255 with a MAC of its own"),
    ("port", "wstap0 up on wsbr0"),
    ("lease", "192.168.86.2"),
    ("DHCP 1 mask", "255.255.255.0"),
    ("DHCP 3 router", "192.168.86.1"),
    ("DHCP 26 MTU", "1500"),
    ("DHCP 28 broadcast", "192.168.86.255"),
    ("DHCP 51 lease time", "86400"),
    ("DHCP 54 server", "192.168.86.1"),
    ("DHCP 58 renewal", "half"),
    ("DHCP 59 rebinding", "7/8"),
    ("ping of the gateway", "answered"),
];

/// The Internet for guests, in addition.
const INTERNET: &[(&str, &str)] = &[
    ("web", "web"),
    ("name server at the gateway", "answers"),
    ("DHCP 6 name servers", "192.168.86.1"),
];

/// What is otherwise in every network of the earlier versions: the fact, its value there ("*" is any),
/// and why, as docs/migrating.md has it.
pub const DIFFERENT: &[(&str, &str, &str)] = &[
    ("neighbour's service", "lan", "guests are kept off private networks"),
    ("machine's service", "srv", "guests are kept off this machine's services"),
    ("ping from outside", "answered", "nobody outside begins a connection to a guest"),
    (
        "answer to a GET",
        "426, Upgrade: websocket, Connection: close, TLS test succeeded, left open",
        "the connection is closed, as the answer says",
    ),
    (
        "answer to a GET",
        "426, Upgrade: websocket, Connection: close, closed",
        "the text is that of the newest version",
    ),
    ("listeners", "0.0.0.0:8071 127.0.0.1:8070", "wss:// is served at the address of ws://"),
    ("DHCP 26 MTU", "-", "guests learn the network's MTU"),
    ("DHCP 6 name servers", "*", "without the Internet no name server is announced"),
    ("name server at the gateway", "answers", "without the Internet no name server is announced"),
    ("name server at the gateway", "-", "the gateway resolves names without a DHCP server too"),
];

/// The lines of the manual with `--ws-address`, with each option that it lists.
pub const NEWEST: &[Line] = &[
    LINE,
    Line { line: "sudo ./wsnic.sh -i", otherwise: INTERNET, ..LINE },
    Line { line: "sudo ./wsnic.sh -i -f wan0 -v", otherwise: INTERNET, ..LINE },
    Line { line: "sudo ./wsnic.sh --enable-inet ---inet-iface wan0", otherwise: INTERNET, ..LINE },
    Line {
        line: "sudo ./wsnic.sh -a 0.0.0.0 --ws-port 9000 --wss-port 9001 -s 10.86.0.0/20",
        otherwise: &[
            ("listeners", "0.0.0.0:9000"),
            ("bridge", "wsbr0 up 10.86.0.1/20 brd 10.86.15.255 with a MAC of its own"),
            ("lease", "10.86.0.2"),
            ("DHCP 1 mask", "255.255.240.0"),
            ("DHCP 3 router", "10.86.0.1"),
            ("DHCP 28 broadcast", "10.86.15.255"),
            ("DHCP 54 server", "10.86.0.1"),
        ],
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh -q --ws-address 192.168.50.1 --subnet 172.30.5.128/25",
        otherwise: &[
            ("listeners", "192.168.50.1:8086"),
            ("bridge", "wsbr0 up 172.30.5.129/25 brd 172.30.5.255 with a MAC of its own"),
            ("lease", "172.30.5.130"),
            ("DHCP 1 mask", "255.255.255.128"),
            ("DHCP 3 router", "172.30.5.129"),
            ("DHCP 28 broadcast", "172.30.5.255"),
            ("DHCP 54 server", "172.30.5.129"),
        ],
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh -r ~/tls/my.crt -k ~/tls/my.key --wss-port 9001",
        certificate: Some(("tls/my.crt", "tls/my.key")),
        otherwise: &[("listeners", "127.0.0.1:8086 127.0.0.1:9001"), ("wss", "serves")],
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh --wss-certificate ~/tls/my.crt --wss-private-key ~/tls/my.key",
        certificate: Some(("tls/my.crt", "tls/my.key")),
        otherwise: TLS,
        ..LINE
    },
    Line { certificate: Some(("cert/cert.crt", "cert/cert.key")), otherwise: TLS, ..LINE },
    Line {
        line: "sudo ./wsnic.sh -i -t 600 -n guests.example -d '8.8.8.8, 8.8.4.4'",
        otherwise: &[
            ("web", "web"),
            ("DHCP 51 lease time", "600"),
            ("DHCP 15 domain", "guests.example"),
            ("DHCP 6 name servers", "8.8.8.8 8.8.4.4"),
            ("name server at the gateway", "answers"),
        ],
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh ---dhcp-lease-time 600 ---dhcp-domain-name guests.example \
               --dhcp-nameserver 9.9.9.9",
        otherwise: &[
            ("DHCP 51 lease time", "600"),
            ("DHCP 15 domain", "guests.example"),
            ("DHCP 6 name servers", "9.9.9.9"),
        ],
        ..LINE
    },
    Line { line: "sudo ./wsnic.sh --disable-dhcp -i", otherwise: NO_DHCP, ..LINE },
    Line {
        line: "sudo ./wsnic.sh --dhcp-lease-file ~/leases",
        otherwise: &[("lease file", "written")],
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh -p",
        otherwise: &[("hint", "run iperf3 -s -B 192.168.86.1")],
        ours_alone: Some("iperf is started by hand"),
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh --enable-iperf",
        otherwise: &[("hint", "run iperf3 -s -B 192.168.86.1")],
        ours_alone: Some("iperf is started by hand"),
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh -c ~/my.conf",
        conf: NEWEST_TEMPLATE,
        otherwise: INTERNET,
        ours_alone: Some(EMPTY_SERVER),
        ..LINE
    },
    Line {
        conf: "enable_inet=1\ninet_iface=wan0\nws_port=9000\ndhcp_lease_time=600\n\
               disable_dhcp=f\nenable_iperf=no\ndhcp_nameserver=9.9.9.9\n",
        otherwise: &[
            ("listeners", "127.0.0.1:9000"),
            ("web", "web"),
            ("name server at the gateway", "answers"),
            ("DHCP 6 name servers", "9.9.9.9"),
            ("DHCP 51 lease time", "600"),
        ],
        ..LINE
    },
    Line {
        // As it was meant: there a name alone was enough.
        conf: "enable_inet=0\ninet_iface=wan0\n",
        ours_alone: Some("`enable_inet=0` closes the Internet although an interface is named"),
        ..LINE
    },
];

/// The lines of the manual with `--docker-mode`, with each option and variable that it lists.
pub const MIDDLE: &[Line] = &[
    Line { conf: MIDDLE_TEMPLATE, ours_alone: Some(EMPTY_SERVER), ..LINE },
    Line { conf: "inet_iface=wan0\n", otherwise: INTERNET, ..LINE },
    Line {
        line: "sudo ./wsnic.sh -n brtap -v -c ~/my.conf",
        conf: "inet_iface=wan0\nws_server_addr=0.0.0.0\nws_server_port=9000\n\
               dhcp_lease_time=600\ndhcp_domain_name=guests.example\n\
               dhcp_nameserver=8.8.8.8, 8.8.4.4\n",
        otherwise: &[
            ("listeners", "0.0.0.0:9000"),
            ("web", "web"),
            ("DHCP 51 lease time", "600"),
            ("DHCP 15 domain", "guests.example"),
            ("DHCP 6 name servers", "8.8.8.8 8.8.4.4"),
            ("name server at the gateway", "answers"),
        ],
        ..LINE
    },
    Line { line: "sudo ./wsnic.sh -q", ..LINE },
    Line { line: "sudo ./wsnic.sh --use-syslog", ours_alone: Some(ONLY_SOME), ..LINE },
    Line {
        conf: "wss_server_cert=tls/my.crt\nwss_server_key=tls/my.key\n",
        certificate: Some(("tls/my.crt", "tls/my.key")),
        otherwise: TLS,
        ..LINE
    },
    Line {
        conf: "dhcp_enabled=0\ninet_iface=wan0\n",
        otherwise: NO_DHCP,
        ours_alone: Some("`dhcp_enabled=0` switches DHCP off"),
        ..LINE
    },
    Line {
        conf: "dhcp_service=disabled\ninet_iface=wan0\n",
        otherwise: NO_DHCP,
        ours_alone: Some(ONLY_SOME),
        ..LINE
    },
    Line {
        conf: "dhcp_service=dnsmasq\ninet_iface=wan0\ndhcp_domain_name=guests.example\n",
        otherwise: &[
            ("web", "web"),
            ("DHCP 15 domain", "guests.example"),
            ("DHCP 6 name servers", "192.168.86.1"),
            ("DHCP 26 MTU", "-"),
            ("name server at the gateway", "answers"),
        ],
        ..LINE
    },
    Line { conf: "dhcp_lease_file=leases\n", otherwise: &[("lease file", "written")], ..LINE },
    Line {
        line: "sudo ./wsnic.sh --docker-mode",
        otherwise: &[("listeners", "0.0.0.0:80 0.0.0.0:8086")],
        ours_alone: Some("the ports of both images are served"),
        ..LINE
    },
    Line {
        line: "sudo -E ./wsnic.sh --docker-mode",
        environment: &[
            ("WSNIC_SUBNET", "10.86.0.0/24"),
            ("WSNIC_ENABLE_HOSTNET", "1"),
            ("WSNIC_ENABLE_DHCP", "1"),
            ("WSNIC_DHCP_LEASE_TIME", "600"),
            ("WSNIC_DHCP_DOMAIN_NAME", "guests.example"),
            ("WSNIC_DHCP_NAMESERVER", "9.9.9.9"),
        ],
        otherwise: &[
            ("listeners", "0.0.0.0:80 0.0.0.0:8086"),
            ("bridge", "wsbr0 up 10.86.0.1/24 brd 10.86.0.255 with a MAC of its own"),
            ("web", "web"),
            ("name server at the gateway", "answers"),
            ("lease", "10.86.0.2"),
            ("DHCP 3 router", "10.86.0.1"),
            ("DHCP 28 broadcast", "10.86.0.255"),
            ("DHCP 54 server", "10.86.0.1"),
            ("DHCP 51 lease time", "600"),
            ("DHCP 15 domain", "guests.example"),
            ("DHCP 6 name servers", "9.9.9.9"),
        ],
        ours_alone: Some("the interface towards the Internet is that of the default route"),
        ..LINE
    },
    Line {
        line: "sudo -E ./wsnic.sh --docker-mode",
        environment: &[("WSNIC_ENABLE_HOSTNET", "1"), ("WSNIC_ENABLE_DHCP", "0")],
        otherwise: &[
            ("listeners", "0.0.0.0:80 0.0.0.0:8086"),
            ("web", "web"),
            ("name server at the gateway", "answers"),
            ("lease", "-"),
        ],
        ours_alone: Some("`WSNIC_ENABLE_DHCP=0` switches DHCP off"),
        ..LINE
    },
];

/// The lines of the oldest manual. Its options have defaults of their own, which the template sets too.
pub const OLDEST: &[Line] = &[
    Line { conf: OLDEST_TEMPLATE, otherwise: OLDEST_NETWORK, ..LINE },
    Line {
        line: "sudo ./wsnic.sh -n brtap -v -c ~/my.conf",
        conf: OLDEST_TEMPLATE,
        otherwise: OLDEST_NETWORK,
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh -n tapdev",
        conf: OLDEST_TEMPLATE,
        otherwise: OLDEST_NETWORK,
        ours_alone: Some(ONE_BACK_END),
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh -n brveth",
        conf: OLDEST_TEMPLATE,
        otherwise: OLDEST_NETWORK,
        ours_alone: Some(ONE_BACK_END),
        ..LINE
    },
    Line {
        line: "sudo ./wsnic.sh -n pktsock",
        conf: OLDEST_TEMPLATE,
        otherwise: OLDEST_NETWORK,
        ours_alone: Some(ONE_BACK_END),
        ..LINE
    },
    Line {
        conf: "ws_server_port=8070\nwss_server_port=8071\neth_iface=wan0\n\
               wss_server_cert=tls/my.crt\nwss_server_key=tls/my.key\n\
               subnet=192.168.86.0/24\ndhcp_domain_name_server=9.9.9.9\n",
        certificate: Some(("tls/my.crt", "tls/my.key")),
        otherwise: &[
            ("listeners", "127.0.0.1:8070 127.0.0.1:8071"),
            ("wss", "serves"),
            ("web", "web"),
            ("name server at the gateway", "answers"),
            ("DHCP 6 name servers", "9.9.9.9"),
        ],
        ..LINE
    },
    Line {
        conf: "ws_server_port=8070\neth_iface=wan0\nsubnet=192.168.86.0/24\ndhcp_service=disabled\n",
        otherwise: &[
            ("listeners", "127.0.0.1:8070"),
            ("web", "web"),
            ("name server at the gateway", "answers"),
            ("lease", "-"),
        ],
        ..LINE
    },
    Line {
        conf: "ws_server_port=8070\neth_iface=wan0\nbridge_subnet=192.168.86.0/24\n\
               dhcp_service=internal\ndhcp_domain=guests.example\ndhcp_mtu=1400\n\
               dhcp_domain_name_server=9.9.9.9\n",
        otherwise: &[
            ("listeners", "127.0.0.1:8070"),
            ("web", "web"),
            ("name server at the gateway", "answers"),
            ("DHCP 6 name servers", "9.9.9.9"),
            ("DHCP 15 domain", "guests.example"),
            ("DHCP 26 MTU", "1400"),
        ],
        ours_alone: Some(ONLY_SOME),
        ..LINE
    },
];

const ONE_BACK_END: &str = "all network back ends are the bridge";

/// The network of the oldest template.
const OLDEST_NETWORK: &[(&str, &str)] = &[
    ("listeners", "127.0.0.1:8070"),
    ("bridge", "wsbr0 up 192.168.2.1/24 brd 192.168.2.255 with a MAC of its own"),
    ("lease", "192.168.2.2"),
    ("DHCP 3 router", "192.168.2.1"),
    ("DHCP 6 name servers", "8.8.8.8 8.8.4.4"),
    ("DHCP 28 broadcast", "192.168.2.255"),
    ("DHCP 54 server", "192.168.2.1"),
    ("DHCP 26 MTU", "-"),
    ("web", "web"),
    ("name server at the gateway", "answers"),
];
/// What the oldest template sets, with the name of the interface that is there.
const OLDEST_TEMPLATE: &str = "# my network\nws_server_addr=127.0.0.1\nws_server_port=8070\n\
    wss_server_port=8071\nwss_server_cert=\nwss_server_key=\neth_iface=wan0\n\
    subnet=192.168.2.0/24\ndhcp_service=dnsmasq\ndhcp_lease_file=\ndhcp_lease_time=86400\n\
    dhcp_domain_name=\ndhcp_domain_name_server=8.8.8.8, 8.8.4.4\ndhcp_mtu=1500\n";
/// What the template of the newest version sets, but for the Internet.
const NEWEST_TEMPLATE: &str = "# my network\nws_address=\nws_port=8086\nwss_port=8087\n\
    wss_certificate=\nwss_private_key=\nenable_inet=1\ninet_iface=\nsubnet=192.168.86.0/24\n\
    disable_dhcp=0\ndhcp_lease_file=\ndhcp_lease_time=86400\ndhcp_domain_name=\n\
    dhcp_nameserver=\nenable_iperf=0\n";
/// What the template of the version in the middle sets.
const MIDDLE_TEMPLATE: &str = "# my network\nws_server_addr=127.0.0.1\nws_server_port=8086\n\
    wss_server_port=8087\nwss_server_cert=\nwss_server_key=\ninet_iface=\n\
    subnet=192.168.86.0/24\ndhcp_enabled=1\ndhcp_lease_file=\ndhcp_lease_time=86400\n\
    dhcp_domain_name=\ndhcp_nameserver=\n";
const TLS: &[(&str, &str)] = &[("listeners", "127.0.0.1:8086 127.0.0.1:8087"), ("wss", "serves")];
const NO_DHCP: &[(&str, &str)] =
    &[("web", "web"), ("name server at the gateway", "answers"), ("lease", "-")];
