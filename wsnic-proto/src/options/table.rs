//! The table of options. Order: as in the manual.

use super::{Group, Kind, OptionId, OptionSpec, Place, Switch};
use crate::slots::MAX_SLOTS;

/// What most rows have in common.
const ROW: OptionSpec = OptionSpec {
    id: OptionId::UseSyslog,
    name: "",
    aliases: &[],
    switches: &[],
    short: None,
    env: None,
    metavar: "",
    kind: Kind::Present,
    default: "",
    help: "",
    group: Group::Program,
    place: Place::Everywhere,
};
const SERVER: OptionSpec = OptionSpec { group: Group::Server, ..ROW };
const DOOR: OptionSpec = OptionSpec { group: Group::Door, ..ROW };
const NETWORK: OptionSpec = OptionSpec { group: Group::Network, ..ROW };
const DHCP: OptionSpec = OptionSpec { group: Group::Dhcp, ..ROW };
const COMMAND_LINE: OptionSpec = OptionSpec { place: Place::CommandLine, ..ROW };

/// Every option, in the order of [`OptionId`].
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        id: OptionId::WsServerAddr,
        name: "ws_server_addr",
        aliases: &["ws_address"],
        short: Some('a'),
        metavar: "ADDRESSES",
        kind: Kind::Addresses,
        default: "127.0.0.1",
        help: "Addresses to listen on, IPv4 or IPv6. 127.0.0.1 serves browsers on this machine \
               only, 0.0.0.0 every IPv4 address of the machine, :: every IPv6 address. Inside a \
               container the default is 0.0.0.0.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::WsServerPort,
        name: "ws_server_port",
        aliases: &["ws_port"],
        metavar: "PORTS",
        kind: Kind::Ports,
        default: "8086",
        help: "Ports for ws:// connections. With --docker-mode the default is 80 and 8086.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::WssServerPort,
        name: "wss_server_port",
        aliases: &["wss_port"],
        metavar: "PORTS",
        kind: Kind::Ports,
        default: "8087",
        help: "Ports for wss:// connections, which need wss_server_cert. With --docker-mode the \
               default is 443 and 8087. A port may be one of ws:// too.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::WssServerCert,
        name: "wss_server_cert",
        aliases: &["wss_certificate"],
        short: Some('r'),
        metavar: "FILE",
        kind: Kind::Path,
        help: "Certificate for wss:// in PEM form, with the chain behind it. The file may hold the \
               private key too. Default: cert/cert.crt if that file exists, inside a container \
               also /opt/wsnic/cert/cert.crt, else wss:// is off.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::WssServerKey,
        name: "wss_server_key",
        aliases: &["wss_private_key"],
        short: Some('k'),
        metavar: "FILE",
        kind: Kind::Path,
        help: "Private key of the certificate in PEM form. Default: cert/cert.key if that file \
               exists, inside a container also /opt/wsnic/cert/cert.key, else the key is taken \
               from the certificate's file.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::WssMoreCerts,
        name: "wss_more_certs",
        metavar: "FILES",
        kind: Kind::Paths,
        help: "More certificates for wss://, each with its chain and its private key in one PEM \
               file. A client gets the one that has the host name it asks for, else that of \
               wss_server_cert.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::WssClientCa,
        name: "wss_client_ca",
        metavar: "FILE",
        kind: Kind::Path,
        help: "Certificates (PEM) that sign those of clients. Clients of wss:// are asked for one.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::WssClientCert,
        name: "wss_client_cert",
        metavar: "WORD",
        kind: Kind::Choice(&["required", "optional"]),
        default: "required",
        help: "Whether a client of wss:// needs a certificate, if wss_client_ca is set. \
               \"optional\": whoever has one needs no other proof.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::Listen,
        name: "listen",
        metavar: "SOCKETS",
        kind: Kind::Listeners,
        help: "Unix sockets to listen on too, for a proxy on this machine. Who connects there is \
               believed which client it speaks for, as trusted_proxies are.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::ListenMode,
        name: "listen_mode",
        metavar: "MODE",
        kind: Kind::Mode,
        default: "0660",
        help: "Mode of the sockets of listen.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::ListenOwner,
        name: "listen_owner",
        metavar: "USER",
        kind: Kind::Owner,
        help: "Owner of the sockets of listen, a user or user:group such as www-data:www-data. \
               Default: root.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::MaxClients,
        name: "max_clients",
        metavar: "COUNT",
        kind: Kind::Number { min: 1, max: MAX_SLOTS },
        default: "1000",
        help: "Clients of the network that may be connected at the same time. Each needs two open \
               files, so that many thousands need a higher limit (ulimit -Hn), and an address: see \
               subnet.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::Page,
        name: "page",
        kind: Kind::Flag,
        default: "yes",
        help: "Whether browsers that open the server's address get a page that tests the server. \
               With no they get a short text.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::StrictPaths,
        name: "strict_paths",
        kind: Kind::Flag,
        default: "no",
        help: "Whether a path that names no network is refused. With no it leads to the network \
               default, as it always did.",
        ..SERVER
    },
    OptionSpec {
        id: OptionId::AllowedOrigins,
        name: "allowed_origins",
        metavar: "ORIGINS",
        kind: Kind::Origins,
        help: "Web pages that may connect, by their origin. Unset: every page, and programs. With \
               a list, a program that sends no Origin needs a token or another proof.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::TokenFile,
        name: "token_file",
        metavar: "FILE",
        kind: Kind::Path,
        help: "Tokens that let clients in, one a line; `wsnic token NAME` makes them. With this, \
               jwt_key_file, basic_auth_file or a required wss_client_cert, nobody comes in without a proof.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::JwtKeyFile,
        name: "jwt_key_file",
        metavar: "FILE",
        kind: Kind::Path,
        help: "Keys of signed tokens (JWT). A PEM public key is for EdDSA; a file of anything else is the secret of HS256, at \
               least 32 bytes.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::BasicAuthFile,
        name: "basic_auth_file",
        metavar: "FILE",
        kind: Kind::Path,
        help: "Names and passwords, as htpasswd -B writes them (bcrypt).",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::TrustedProxies,
        name: "trusted_proxies",
        metavar: "BLOCKS",
        kind: Kind::AnyBlocks,
        help: "Proxies that are believed which client they speak for. By X-Forwarded-For or \
               X-Real-IP, or by the PROXY protocol with proxy_protocol.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::ProxyProtocol,
        name: "proxy_protocol",
        metavar: "",
        kind: Kind::Flag,
        default: "no",
        help: "Whether trusted proxies begin each connection with the PROXY protocol (version 2). \
               Then those of trusted_proxies and of listen must.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::MaxClientsPerAddress,
        name: "max_clients_per_address",
        metavar: "COUNT",
        kind: Kind::Number { min: 0, max: MAX_SLOTS },
        default: "100",
        help: "Clients of one address at the same time, for IPv6 of one /64. 0 is no limit. This \
               machine's own loopback addresses have none.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::HandshakeRate,
        name: "handshake_rate",
        metavar: "COUNT",
        kind: Kind::Number { min: 0, max: 100_000 },
        default: "20",
        help: "Connections that one address may begin in a second, five times as many at once. 0 \
               is no limit, as for loopback addresses.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::BanAfter,
        name: "ban_after",
        metavar: "COUNT",
        kind: Kind::Number { min: 1, max: 1_000_000 },
        default: "10",
        help: "An address is banned after so many wrong proofs within ban_time.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::BanTime,
        name: "ban_time",
        metavar: "SECONDS",
        kind: Kind::Number { min: 0, max: u32::MAX },
        default: "600",
        help: "How long a ban lasts after the last attempt. 0 bans nobody, as loopback addresses \
               never are.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::SessionTime,
        name: "session_time",
        metavar: "SECONDS",
        kind: Kind::Number { min: 0, max: u32::MAX },
        default: "0",
        help: "A session ends after so long. 0 is never.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::IdleTime,
        name: "idle_time",
        metavar: "SECONDS",
        kind: Kind::Number { min: 0, max: u32::MAX },
        default: "0",
        help: "A session ends when its guest has sent no frame for so long. 0 is never.",
        ..DOOR
    },
    OptionSpec {
        id: OptionId::Subnet,
        name: "subnet",
        aliases: &["bridge_subnet"],
        short: Some('s'),
        env: Some("WSNIC_SUBNET"),
        metavar: "BLOCK",
        kind: Kind::Block,
        default: "192.168.86.0/24",
        help: "Addresses of the guests' network. The first host address belongs to the bridge, \
               which is the guests' gateway, the others are for guests. Choose another block if \
               this one is in use on your network.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::Mtu,
        name: "mtu",
        aliases: &["dhcp_mtu"],
        metavar: "BYTES",
        kind: Kind::Number { min: 576, max: 65521 },
        default: "1500",
        help: "Largest IP packet on the guests' network, in bytes. Guests learn it by DHCP.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::EnableInet,
        name: "enable_inet",
        short: Some('i'),
        env: Some("WSNIC_ENABLE_HOSTNET"),
        kind: Kind::Flag,
        help: "Whether guests reach the Internet through this machine (NAT). Yes without inet_iface \
               uses the interface of the default route, no overrides inet_iface. Default: yes if \
               inet_iface is set.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::InetIface,
        name: "inet_iface",
        aliases: &["eth_iface"],
        short: Some('f'),
        metavar: "INTERFACE",
        kind: Kind::Interface,
        help: "Interface through which guests reach the Internet (NAT). Unset and without \
               enable_inet, guests reach each other and the gateway only.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::GuestAccess,
        name: "guest_access",
        metavar: "WHAT",
        kind: Kind::Choice(&["internet", "lan", "all"]),
        default: "internet",
        help: "What guests may reach beyond their own network. \"internet\": public addresses. \
               \"lan\": private addresses too, but no service of this machine and no link-local or \
               metadata address. \"all\": everything that this machine reaches, and the machine \
               itself.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::Allow,
        name: "allow",
        metavar: "BLOCKS",
        kind: Kind::Blocks,
        help: "Blocks that guests may reach although guest_access excludes them.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::Deny,
        name: "deny",
        metavar: "BLOCKS",
        kind: Kind::Blocks,
        help: "Blocks that guests may not reach, whatever the other options say.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::HostFirewall,
        name: "host_firewall",
        metavar: "ACTION",
        kind: Kind::Choice(&["report", "open"]),
        default: "report",
        help: "What to do when this machine's firewall drops the guests' packets. \"report\" logs \
               the command that would let them pass, \"open\" inserts accept rules and removes them \
               at exit.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::AllowVlan,
        name: "allow_vlan",
        kind: Kind::Flag,
        default: "no",
        help: "Whether frames with a VLAN tag pass between guests.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::Offloads,
        name: "offloads",
        kind: Kind::Flag,
        default: "yes",
        help: "Whether the kernel hands over many frames as one. wsnic cuts and joins them, guests see \
               no difference but speed.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::RateLimitUpBytes,
        name: "rate_limit_up_bytes",
        metavar: "BYTES",
        kind: Kind::Number { min: 0, max: u32::MAX },
        default: "0",
        help: "Bytes that each guest may send in a second. 0 is no limit. A guest that sends more is read from more slowly; nothing of it is lost.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::RateLimitUpFrames,
        name: "rate_limit_up_frames",
        metavar: "COUNT",
        kind: Kind::Number { min: 0, max: u32::MAX },
        default: "0",
        help: "Frames that each guest may send in a second. 0 is no limit.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::RateLimitDownBytes,
        name: "rate_limit_down_bytes",
        metavar: "BYTES",
        kind: Kind::Number { min: 0, max: u32::MAX },
        default: "0",
        help: "Bytes that each guest may get in a second. 0 is no limit. What its queue does not hold is dropped, as on a slow line.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::RateLimitDownFrames,
        name: "rate_limit_down_frames",
        metavar: "COUNT",
        kind: Kind::Number { min: 0, max: u32::MAX },
        default: "0",
        help: "Frames that each guest may get in a second. 0 is no limit.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::RateLimitBurst,
        name: "rate_limit_burst",
        metavar: "MILLISECONDS",
        kind: Kind::Number { min: 1, max: 60_000 },
        default: "100",
        help: "How much may come at once after a pause, as the time in which the rate would bring it. Of each of the rate_limit options.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::Isolation,
        name: "isolation",
        kind: Kind::Flag,
        default: "no",
        help: "Whether guests are kept apart. With yes each reaches the gateway and what lies behind \
               it, and no other guest.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::Locks,
        name: "locks",
        kind: Kind::Flag,
        default: "yes",
        help: "Whether the kernel holds each guest to its own addresses. No guest can then take \
               another's MAC or IPv4 address or the gateway's, play DHCP server or IPv6 router, or \
               flood the network with frames to many.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::MaxMacs,
        name: "max_macs",
        metavar: "COUNT",
        kind: Kind::Number { min: 1, max: 64 },
        default: "1",
        help: "MAC addresses that one guest may have, while locks is on. More than one for machines \
               that bridge others. A new one takes the place of the oldest.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::MaxMulticast,
        name: "max_multicast",
        metavar: "COUNT",
        kind: Kind::Number { min: 0, max: 1_000_000 },
        default: "1000",
        help: "Broadcast and multicast frames that each guest may send in a second, while locks is \
               on. 0 is no limit. They reach every guest.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::Private,
        name: "private",
        kind: Kind::Flag,
        default: "no",
        help: "Whether only proofs that name this network let in. With no, who may come in at all may \
               choose it by the path.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::Rooms,
        name: "rooms",
        kind: Kind::Flag,
        default: "no",
        help: "Whether each /NAME/SECRET is a network of its own. It is made for its first guest and \
               removed after its last. In a [network NAME] section only.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::MaxRooms,
        name: "max_rooms",
        metavar: "COUNT",
        kind: Kind::Number { min: 1, max: 1000 },
        default: "64",
        help: "Rooms at the same time.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::RoomPrefix,
        name: "room_prefix",
        metavar: "BITS",
        kind: Kind::Number { min: 9, max: 30 },
        default: "24",
        help: "Prefix length of each room's subnet, which is a part of subnet.",
        ..NETWORK
    },
    OptionSpec {
        id: OptionId::DhcpService,
        name: "dhcp_service",
        switches: &[
            Switch { name: "disable_dhcp", answer: true, value: "disabled" },
            Switch { name: "dhcp_enabled", answer: false, value: "disabled" },
        ],
        env: Some("WSNIC_ENABLE_DHCP"),
        metavar: "SERVICE",
        kind: Kind::Choice(&["builtin", "dnsmasq", "disabled"]),
        default: "builtin",
        help: "Who gives guests their addresses. \"builtin\" needs nothing installed, \"dnsmasq\" is \
               that program, which also resolves guests' names, \"disabled\" leaves it to the guests.",
        ..DHCP
    },
    OptionSpec {
        id: OptionId::DhcpLeaseFile,
        name: "dhcp_lease_file",
        metavar: "FILE",
        kind: Kind::Path,
        help: "Where leases are kept across restarts. Unset, they are forgotten at exit.",
        ..DHCP
    },
    OptionSpec {
        id: OptionId::DhcpLeaseTime,
        name: "dhcp_lease_time",
        short: Some('t'),
        env: Some("WSNIC_DHCP_LEASE_TIME"),
        metavar: "SECONDS",
        kind: Kind::Number { min: 120, max: u32::MAX - 1 },
        default: "86400",
        help: "How long a guest keeps its address, in seconds.",
        ..DHCP
    },
    OptionSpec {
        id: OptionId::DhcpDomainName,
        name: "dhcp_domain_name",
        aliases: &["dhcp_domain"],
        short: Some('n'),
        env: Some("WSNIC_DHCP_DOMAIN_NAME"),
        metavar: "NAME",
        kind: Kind::Domain,
        help: "Domain that guests search names in.",
        ..DHCP
    },
    OptionSpec {
        id: OptionId::DhcpNameserver,
        name: "dhcp_nameserver",
        aliases: &["dhcp_domain_name_server"],
        short: Some('d'),
        env: Some("WSNIC_DHCP_NAMESERVER"),
        metavar: "ADDRESSES",
        kind: Kind::NameServers,
        help: "Name servers for guests, IPv4 addresses. Unset or empty: the gateway, which asks the \
               name servers of this machine.",
        ..DHCP
    },
    OptionSpec {
        id: OptionId::HelperSocket,
        name: "helper_socket",
        metavar: "PATH",
        kind: Kind::SocketPath,
        default: "/run/wsnic-priv.sock",
        help: "Socket between front-end and helper.",
        ..ROW
    },
    OptionSpec {
        id: OptionId::AdminSocket,
        name: "admin_socket",
        metavar: "PATH",
        kind: Kind::SocketPath,
        default: "/run/wsnic-admin.sock",
        help: "Where the front-end takes orders of root, such as new certificates from `wsnic reload`.",
        ..ROW
    },
    OptionSpec {
        id: OptionId::MetricsListen,
        name: "metrics_listen",
        metavar: "ADDRESSES",
        kind: Kind::SocketAddresses,
        help: "Where to answer GET /metrics (Prometheus), /healthz and /readyz. Unset: nowhere but on \
               the admin socket. Who reaches it may read it.",
        ..ROW
    },
    OptionSpec {
        id: OptionId::User,
        name: "user",
        metavar: "NAME",
        kind: Kind::User,
        help: "User that the front-end becomes when it is started as root. Default: wsnic if there \
               is such a user, else nobody.",
        ..ROW
    },
    OptionSpec {
        id: OptionId::HelperUser,
        name: "helper_user",
        metavar: "NAME",
        kind: Kind::User,
        help: "User that the helper becomes when it is started as root, keeping CAP_NET_ADMIN only. \
               Default: wsnic-priv if there is such a user, else the unused user number 65523.",
        ..ROW
    },
    OptionSpec {
        id: OptionId::Sandbox,
        name: "sandbox",
        metavar: "LEVEL",
        kind: Kind::Choice(&["require", "prefer", "off"]),
        default: "prefer",
        help: "How the programs lock themselves in. \"require\": not starting where this kernel or \
               container refuses a part of the sandbox. \"prefer\": going on without that part, \
               which the log names. \"off\" is for debugging only. Started by systemd the default \
               is require.",
        ..ROW
    },
    OptionSpec {
        id: OptionId::LogFormat,
        name: "log_format",
        metavar: "FORMAT",
        kind: Kind::Choice(&["text", "json"]),
        default: "text",
        help: "How the log is written. \"text\": lines for people. \"json\": one JSON object a line, \
               with time, level, program, message and what else is known.",
        ..ROW
    },
    OptionSpec {
        id: OptionId::EnableIperf,
        name: "enable_iperf",
        short: Some('p'),
        kind: Kind::Flag,
        default: "no",
        help: "Accepted and ignored. Run iperf3 -s -B with the bridge's address yourself.",
        place: Place::Obsolete,
        ..ROW
    },
    OptionSpec {
        id: OptionId::Config,
        name: "config",
        short: Some('c'),
        metavar: "FILE",
        kind: Kind::Path,
        help: "Read this wsnic.conf. Default: wsnic.conf in the working directory, else \
               /etc/wsnic/wsnic.conf, if there is one.",
        ..COMMAND_LINE
    },
    OptionSpec {
        id: OptionId::Verbose,
        name: "verbose",
        short: Some('v'),
        help: "Log more, given twice everything.",
        ..COMMAND_LINE
    },
    OptionSpec {
        id: OptionId::Quiet,
        name: "quiet",
        short: Some('q'),
        help: "Log warnings and errors only.",
        ..COMMAND_LINE
    },
    OptionSpec {
        id: OptionId::DockerMode,
        name: "docker_mode",
        help: "Take the defaults of a container. Listen on 0.0.0.0, ports 80 and 443, and read the \
               WSNIC_ environment variables.",
        ..COMMAND_LINE
    },
    OptionSpec {
        id: OptionId::UseSyslog,
        name: "use_syslog",
        help: "Send the log to the syslog daemon (/dev/log) instead of stderr. Under systemd the \
               journal gets it from stderr, with priorities, without this.",
        ..COMMAND_LINE
    },
];
