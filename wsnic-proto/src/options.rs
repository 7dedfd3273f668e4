//! The one table of everything that an operator can set, and what is made from it.
//!
//! The parser of wsnic.conf, the command line, the container environment, `--help`, the annotated
//! wsnic.conf and the README's table of options all read [`OPTIONS`]; an option is added there and
//! in [`crate::settings`], nowhere else.

mod table;
mod text;

pub use table::OPTIONS;
pub use text::{markdown_table, template, wrap};

/// Names one row of [`OPTIONS`]; the order is the table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is documented by its row of the table")]
pub enum OptionId {
    WsServerAddr,
    WsServerPort,
    WssServerPort,
    WssServerCert,
    WssServerKey,
    WssMoreCerts,
    WssClientCa,
    WssClientCert,
    Listen,
    ListenMode,
    ListenOwner,
    MaxClients,
    Page,
    StrictPaths,
    AllowedOrigins,
    TokenFile,
    JwtKeyFile,
    BasicAuthFile,
    TrustedProxies,
    ProxyProtocol,
    MaxClientsPerAddress,
    HandshakeRate,
    BanAfter,
    BanTime,
    SessionTime,
    IdleTime,
    Subnet,
    Mtu,
    EnableInet,
    InetIface,
    GuestAccess,
    Allow,
    Deny,
    HostFirewall,
    AllowVlan,
    Offloads,
    RateLimitUpBytes,
    RateLimitUpFrames,
    RateLimitDownBytes,
    RateLimitDownFrames,
    RateLimitBurst,
    Isolation,
    Locks,
    MaxMacs,
    MaxMulticast,
    Private,
    Rooms,
    MaxRooms,
    RoomPrefix,
    DhcpService,
    DhcpLeaseFile,
    DhcpLeaseTime,
    DhcpDomainName,
    DhcpNameserver,
    HelperSocket,
    AdminSocket,
    MetricsListen,
    User,
    HelperUser,
    Sandbox,
    LogFormat,
    EnableIperf,
    Config,
    Verbose,
    Quiet,
    DockerMode,
    UseSyslog,
}

/// One option: its names, its values and its manual.
#[derive(Debug)]
pub struct OptionSpec {
    /// Which option this is.
    pub id: OptionId,
    /// The canonical name in wsnic.conf; with dashes for underscores the long option.
    pub name: &'static str,
    /// Names of earlier versions, accepted in wsnic.conf and, with dashes, on the command line.
    pub aliases: &'static [&'static str],
    /// Earlier yes/no options for one value of this one.
    pub switches: &'static [Switch],
    /// The short option.
    pub short: Option<char>,
    /// The variable that sets the option inside a container.
    pub env: Option<&'static str>,
    /// What the value is called in `--help`; empty for flags.
    pub metavar: &'static str,
    /// Which values are allowed.
    pub kind: Kind,
    /// The default as it would be written; empty: unset.
    pub default: &'static str,
    /// The first sentence stands alone in `-h`.
    pub help: &'static str,
    /// Where the option stands in the manual.
    pub group: Group,
    /// Who can use it.
    pub place: Place,
}

/// A yes/no option that stands for one value of another: `answer` sets `value`, the other one says
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct Switch {
    /// The option's name in wsnic.conf; with dashes the long option.
    pub name: &'static str,
    /// Which answer means it.
    pub answer: bool,
    /// What that means.
    pub value: &'static str,
}

/// Where an option can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In wsnic.conf and on the command line.
    Everywhere,
    /// As [`Place::Everywhere`], but in no manual: accepted so that old files and scripts work.
    Obsolete,
    /// On the command line only.
    CommandLine,
}

/// Chapters of the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Where clients connect.
    Server,
    /// Who may come in, and how much.
    Door,
    /// The guests' network and what it reaches.
    Network,
    /// Addresses and names for guests.
    Dhcp,
    /// The programs themselves.
    Program,
}

impl Group {
    /// All groups in the manual's order.
    pub const ALL: [Group; 5] =
        [Group::Server, Group::Door, Group::Network, Group::Dhcp, Group::Program];

    /// The heading in `--help`, template and README.
    pub const fn title(self) -> &'static str {
        match self {
            Group::Server => "Server",
            Group::Door => "Who may come in",
            Group::Network => "Network",
            Group::Dhcp => "DHCP and DNS",
            Group::Program => "Program",
        }
    }
}

/// Which values an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list of IP addresses, at least one.
    Addresses,
    /// A list of IP addresses with ports.
    SocketAddresses,
    /// A list of name servers.
    NameServers,
    /// A list of TCP ports, at least one.
    Ports,
    /// A whole number.
    Number {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// Yes or no; on the command line the value may be left out and then is yes.
    Flag,
    /// On the command line, present or not.
    Present,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One IPv4 block.
    Block,
    /// A list of IPv4 blocks.
    Blocks,
    /// A file's path.
    Path,
    /// Files' paths; only commas separate them.
    Paths,
    /// Unix sockets to listen on.
    Listeners,
    /// A file's mode in octal.
    Mode,
    /// A user, or a user and a group.
    Owner,
    /// Origins of web pages.
    Origins,
    /// IPv4 and IPv6 blocks.
    AnyBlocks,
    /// A unix socket's path.
    SocketPath,
    /// A network interface.
    Interface,
    /// A DNS domain.
    Domain,
    /// A user of this machine.
    User,
}

impl Kind {
    /// The allowed values, to follow "give" in a sentence.
    pub fn allowed(self) -> String {
        match self {
            Kind::Addresses => {
                "IPv4 or IPv6 addresses separated by commas, such as 127.0.0.1, ::1".to_owned()
            }
            Kind::SocketAddresses => {
                "addresses with ports, separated by commas, such as 127.0.0.1:9100, [::1]:9100"
                    .to_owned()
            }
            Kind::NameServers => {
                "at most 63 IPv4 addresses separated by commas, such as 9.9.9.9, 1.1.1.1".to_owned()
            }
            Kind::Ports => "numbers from 1 to 65535 separated by commas, such as 8086".to_owned(),
            Kind::Number { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Flag => "yes or no (also on, true, t, 1, off, false, f, 0)".to_owned(),
            Kind::Present => "the option without a value".to_owned(),
            Kind::Choice(words) => match words.split_last() {
                Some((last, [])) => (*last).to_owned(),
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => String::new(),
            },
            Kind::Block => "an IPv4 block such as 192.168.86.0/24".to_owned(),
            Kind::Blocks => {
                "IPv4 blocks separated by commas, such as 10.0.0.0/8, 192.168.1.7".to_owned()
            }
            Kind::Path => "the path of a file".to_owned(),
            Kind::Paths => "paths of files separated by commas".to_owned(),
            Kind::Listeners => {
                "unix: and a path, separated by commas, such as unix:/run/wsnic.sock".to_owned()
            }
            Kind::Mode => "an octal mode from 0600 to 0666 such as 0660".to_owned(),
            Kind::Owner => "a user, or user:group, such as www-data:www-data".to_owned(),
            Kind::Origins => {
                "origins separated by commas, such as https://example.org, http://localhost:8000"
                    .to_owned()
            }
            Kind::AnyBlocks => {
                "IPv4 or IPv6 blocks separated by commas, such as 127.0.0.1, 2001:db8::/32"
                    .to_owned()
            }
            Kind::SocketPath => {
                "a path of at most 107 bytes such as /run/wsnic-priv.sock".to_owned()
            }
            Kind::Interface => {
                "the name of a network interface (\"ip link\" lists them), such as eth0".to_owned()
            }
            Kind::Domain => {
                "a domain name of letters, digits, hyphens and dots, such as guests.example"
                    .to_owned()
            }
            Kind::User => "the name of a user of this machine, such as wsnic".to_owned(),
        }
    }

    /// The sentence about values for the manual; empty where the help says it all.
    pub fn manual(self) -> String {
        match self {
            Kind::Flag => "Value: yes or no.".to_owned(),
            Kind::Present
            | Kind::Choice(_)
            | Kind::Path
            | Kind::Owner
            | Kind::SocketPath
            | Kind::Interface
            | Kind::User => String::new(),
            kind => format!("Value: {}.", kind.allowed()),
        }
    }

    /// True if several values may be given.
    pub const fn is_list(self) -> bool {
        matches!(
            self,
            Kind::Addresses
                | Kind::SocketAddresses
                | Kind::Ports
                | Kind::NameServers
                | Kind::Blocks
                | Kind::Paths
                | Kind::Listeners
                | Kind::Origins
                | Kind::AnyBlocks
        )
    }
}

impl OptionSpec {
    /// The long option without its two dashes.
    pub fn long(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The first sentence of the help, without its full stop.
    pub fn summary(&self) -> &'static str {
        self.help
            .split_once(". ")
            .map_or_else(|| self.help.trim_end_matches('.'), |(first, _)| first)
    }
}

impl OptionId {
    /// Whether each `[network NAME]` has the option for itself.
    pub fn is_of_network(self) -> bool {
        match self {
            OptionId::MaxClients => true,
            // One firewall, and one kernel.
            OptionId::HostFirewall | OptionId::Offloads => false,
            _ => matches!(self.spec().group, Group::Network | Group::Dhcp),
        }
    }

    /// The option's row.
    pub fn spec(self) -> &'static OptionSpec {
        // The discriminant is the row's index, which a test holds true; no other index exists.
        &OPTIONS[self as usize]
    }
}

/// The option that is written `name` in wsnic.conf in any case, and the switch if it is one.
pub fn find(name: &str) -> Option<(&'static OptionSpec, Option<Switch>)> {
    OPTIONS.iter().filter(|spec| spec.place != Place::CommandLine).find_map(|spec| {
        let mut names = spec.aliases.iter().chain([&spec.name]);
        if names.any(|known| known.eq_ignore_ascii_case(name)) {
            return Some((spec, None));
        }
        let mut switches = spec.switches.iter();
        let switch = switches.find(|switch| switch.name.eq_ignore_ascii_case(name))?;
        Some((spec, Some(*switch)))
    })
}

/// The name in wsnic.conf that an unknown one was probably meant to be.
pub fn similar(name: &str) -> Option<&'static str> {
    // Longer texts are no misspelt option, and the comparison costs the product of the lengths.
    const LONGEST: usize = 40;
    // Two slips: one letter wrong, missing, doubled, or two swapped.
    const SLIPS: usize = 2;
    let wanted: Vec<char> =
        name.chars().take(LONGEST + 1).map(|c| if c == '-' { '_' } else { c }).collect();
    if wanted.len() > LONGEST || wanted.len() < 4 {
        return None;
    }
    OPTIONS
        .iter()
        .filter(|spec| spec.place == Place::Everywhere)
        .flat_map(|spec| spec.aliases.iter().chain([&spec.name]))
        .map(|known| (distance(&wanted, known), *known))
        .min()
        .filter(|(slips, _)| *slips <= SLIPS)
        .map(|(_, known)| known)
}

/// Levenshtein's distance, letters compared without case.
fn distance(wanted: &[char], known: &str) -> usize {
    let mut row: Vec<usize> = (0..=wanted.len()).collect();
    for (above, letter) in known.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(wanted) {
            let replaced = diagonal + usize::from(!letter.eq_ignore_ascii_case(other));
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_identifier_finds_its_own_row() {
        for (index, spec) in OPTIONS.iter().enumerate() {
            assert_eq!(spec.id as usize, index, "{}", spec.name);
        }
        assert_eq!(OPTIONS.len(), OptionId::UseSyslog as usize + 1);
    }

    #[test]
    fn no_two_options_share_a_spelling() {
        let mut names = HashSet::new();
        let mut shorts = HashSet::from(['h', 'V']);
        for spec in OPTIONS {
            let switches = spec.switches.iter().map(|switch| switch.name);
            for name in spec.aliases.iter().copied().chain([spec.name]).chain(switches) {
                assert!(names.insert(name), "{name}");
                assert_eq!(name, name.to_ascii_lowercase());
            }
            assert!(spec.short.is_none_or(|short| shorts.insert(short)), "{}", spec.name);
        }
    }

    #[test]
    fn every_row_has_a_manual_that_fits_a_terminal() {
        for spec in OPTIONS {
            assert!(spec.help.ends_with('.'), "{}", spec.name);
            assert!((10..=90).contains(&spec.summary().len()), "{}: {}", spec.name, spec.summary());
            assert_eq!(
                spec.metavar.is_empty(),
                matches!(spec.kind, Kind::Flag | Kind::Present),
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn misspelt_names_find_the_one_that_was_meant() {
        assert_eq!(similar("ws_server_prot"), Some("ws_server_port"));
        assert_eq!(similar("WS-SERVER-PORT"), Some("ws_server_port"));
        assert_eq!(similar("dhcp_nameservers"), Some("dhcp_nameserver"));
        assert_eq!(similar("tap_addr"), None);
        assert_eq!(similar(""), None);
        assert_eq!(similar(&"x".repeat(100_000)), None);
    }

    #[test]
    fn names_are_found_in_any_case_and_by_every_alias() {
        for (name, id) in [
            ("WS_Address", OptionId::WsServerAddr),
            ("eth_iface", OptionId::InetIface),
            ("bridge_subnet", OptionId::Subnet),
            ("disable_dhcp", OptionId::DhcpService),
            ("DHCP_Enabled", OptionId::DhcpService),
        ] {
            assert_eq!(find(name).map(|(spec, _)| spec.id), Some(id), "{name}");
        }
        assert!(find("verbose").is_none());
    }
}
