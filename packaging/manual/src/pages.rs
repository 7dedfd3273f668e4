//! The four man pages: prose from here, options and arguments from where the programs have them.

use crate::roff::Page;
use clap::{Arg, ArgAction, Command};
use wsnic_proto::options::{Group, OPTIONS, OptionSpec, Place};

/// Every page.
pub fn all() -> [Page; 4] {
    [wsnic(), wsnic_conf(), helper(), front_end()]
}

fn wsnic() -> Page {
    let tree = ::wsnic::words::tree();
    let mut page =
        Page::new("wsnic", 1, "put emulated machines in browsers onto a network of this machine");
    page.section("Synopsis").text("`wsnic` [`run`] [<OPTION>]...");
    for word in tree.get_subcommands().filter(|word| word.get_name() != "run") {
        page.text(&usage(word));
    }
    page.section("Description")
        .text(
            "`wsnic` is a WebSocket server. One binary message is one Ethernet frame; each client \
             gets a port of its own on the bridge `wsbr0`, an address by DHCP, names, and the \
             Internet if `--enable-inet` says so. v86 and other emulators that run in a browser \
             are such clients.",
        )
        .text(
            "`wsnic run` needs root. It starts and supervises wsnic-priv(8), which makes the \
             network and sees no client, and wsnic-front(8), which serves clients and holds no \
             privilege. systemd can start the two without it, see FILES.",
        );
    page.section("Commands");
    for word in tree.get_subcommands() {
        let about = word.get_about().map(ToString::to_string).unwrap_or_default();
        page.item(&usage(word), &sentence(&about));
        for argument in own_arguments(word) {
            page.more(&format!("{}: {}", term(argument), help(argument)));
        }
    }
    page.section("Options").text(
        "Every option stands in wsnic.conf(5) too, with its meaning in full. The command line \
         beats the file. A list may be given as one value with commas, or by several options.",
    );
    for group in Group::ALL {
        page.subsection(group.title());
        for spec in options(group, Place::Everywhere) {
            page.item(&option_term(spec), &sentence(spec.summary()));
        }
        for spec in options(group, Place::CommandLine) {
            page.item(&option_term(spec), spec.help);
        }
    }
    page.item("`-h`, `--help`", "Print a summary of the options, in full with `--help`.");
    page.item("`-V`, `--version`", "Print the version.");
    page.section("Signals")
        .item("SIGTERM, SIGINT", "End, and take away everything that was made.")
        .item(
            "SIGHUP",
            "Read the configuration again. `guest_access`, `allow`, `deny`, `host_firewall`, \
             certificates and lists of clients change at once, the rest at the next start.",
        );
    page.section("Exit status")
        .item("0", "Ended as told; `check`: wsnic would start; `status`: a wsnic serves.")
        .item("1", "It did not work, and standard error says why.")
        .item("2", "The command line or the configuration is wrong.");
    page.section("Environment")
        .text("These set options inside a container, or with `--docker-mode`:");
    for (spec, variable) in OPTIONS.iter().filter_map(|spec| Some((spec, spec.env?))) {
        page.item(&format!("`{variable}`"), &format!("`{}`", spec.name));
    }
    page.section("Files");
    files(&mut page);
    page.item(
        "/opt/wsnic/wsnic.conf, /opt/wsnic/cert/cert.crt, /opt/wsnic/cert/cert.key",
        "Configuration, certificate and key inside a container.",
    );
    page.item(
        "wsnic-front.socket, wsnic-priv.socket",
        "Units of systemd that start front-end and helper with the first client; nothing of \
         wsnic is root then.",
    );
    page.item("wsnic.service", "The unit that runs `wsnic run` instead.");
    page.section("Examples")
        .text("Guests of this machine's browsers get the Internet:")
        .example("wsnic run --enable-inet")
        .text("Everybody may connect, and is asked for a token:")
        .example("wsnic run --ws-server-addr 0.0.0.0 --token-file /etc/wsnic/tokens")
        .text("Is this machine fit for it?")
        .example("wsnic check");
    page.section("See also").text("wsnic.conf(5), wsnic-front(8), wsnic-priv(8)");
    page
}

fn wsnic_conf() -> Page {
    let mut page = Page::new("wsnic.conf", 5, "configuration of wsnic");
    page.section("Description")
        .text(
            "wsnic(1), wsnic-priv(8) and wsnic-front(8) read `wsnic.conf` in the working \
             directory, or else `/etc/wsnic/wsnic.conf`, or else the file named by `-c`. There \
             need not be one.",
        )
        .text(
            "Each line is <option>`=`<value>; a colon does as well. Names of options are \
             understood in any case. A line that begins with `#` or `;` is a comment. An empty \
             value is the same as none. Lists are separated by commas, semicolons or blanks. An \
             option may stand in a file once. An option that is not known is warned about; any \
             other mistake keeps wsnic from starting, and is said with its line.",
        )
        .text(
            "A line `[network `<NAME>`]` begins the section of one more network, with a bridge and \
             rules of its own. Options of a network may stand in it: those below NETWORK and DHCP \
             AND DNS, but for `host_firewall` and `offloads`, and `max_clients`. What a section \
             does not say has the option's default; `subnet` must be there. Clients come into it \
             by the path `/`<NAME>, or by a token that names it.",
        )
        .text(
            "`wsnic template` prints a file with every option at its default; `wsnic check` says \
             what is wrong with a file.",
        );
    for group in Group::ALL {
        page.section(group.title());
        for spec in options(group, Place::Everywhere) {
            describe(&mut page, spec);
        }
    }
    page.section("Accepted and ignored");
    for spec in OPTIONS.iter().filter(|spec| spec.place == Place::Obsolete) {
        describe(&mut page, spec);
    }
    page.section("Files");
    files(&mut page);
    page.section("Examples").text("A public server with TLS, for those who hold a token:").example(
        "ws_server_addr=0.0.0.0, ::\nwss_server_cert=/etc/wsnic/wss.crt\n\
             wss_server_key=/etc/wsnic/wss.key\ntoken_file=/etc/wsnic/tokens\nenable_inet=yes",
    );
    page.section("See also").text("wsnic(1), wsnic-front(8), wsnic-priv(8)");
    page
}

fn helper() -> Page {
    let mut page = Page::new("wsnic-priv", 8, "helper of wsnic that owns the guests' network");
    page.section("Synopsis").text("`wsnic-priv` [<OPTION>]...");
    page.section("Description")
        .text(
            "`wsnic-priv` makes the bridge `wsbr0` (and one for each other network), a TAP for \
             each client, the firewall tables `inet wsnic_guard`, `bridge wsnic_ports` and \
             `ip wsnic_nat`, and turns forwarding on where it is needed. \
             It hears wsnic-front(8) by one unix socket, in small messages without text, and hands \
             it the TAPs. It never sees a frame or a client.",
        )
        .text(
            "It is started by systemd or by wsnic(1). Started as root it becomes the user \
             `wsnic-priv` (or user 65523), keeps CAP_NET_ADMIN alone, and locks itself in with \
             Landlock and seccomp before it serves.",
        )
        .text(
            "If it dies, sessions go on, and it takes over bridge and ports when it is started \
             again with the connections that systemd or wsnic(1) have kept. Until Linux 6.9 the \
             guard is gone in the meantime.",
        );
    own_options(&mut page, &wsnic_priv::startup::command());
    page.section("Signals")
        .item("SIGTERM, SIGINT", "End, and take away everything that was made.")
        .item(
            "SIGHUP",
            "Read the configuration again and apply `guest_access`, `allow`, `deny` and \
             `host_firewall`. No session ends.",
        );
    page.section("Files");
    files(&mut page);
    page.item("/run/wsnic-priv.sock", "Where the front-end connects, see `helper_socket`.");
    page.item("/dev/net/tun", "TAPs come from here.");
    page.section("See also").text("wsnic(1), wsnic.conf(5), wsnic-front(8)");
    page
}

fn front_end() -> Page {
    let mut page = Page::new("wsnic-front", 8, "front-end of wsnic that serves clients");
    page.section("Synopsis").text("`wsnic-front` [<OPTION>]...");
    page.section("Description")
        .text(
            "`wsnic-front` speaks HTTP, TLS and WebSocket with clients, answers guests' DHCP, and \
             moves frames between WebSockets and the TAPs that wsnic-priv(8) gives it. It names \
             no interface, runs no program and holds no privilege.",
        )
        .text(
            "It is started by systemd or by wsnic(1). Listeners, certificates, the lease file and \
             the connection to the helper are opened first; then it becomes the user `wsnic` (or \
             `nobody`), gives up every capability, and locks itself in: namespaces with nothing \
             in them, Landlock, seccomp. Only then it reads from clients.",
        )
        .text("If it ends, all sessions end; clients such as v86 connect again by themselves.");
    own_options(&mut page, &wsnic_front::startup::command());
    page.section("Signals")
        .item("SIGTERM, SIGINT", "Say goodbye to all clients and end.")
        .item("SIGHUP", "Changes nothing; `wsnic reload` brings new certificates and lists.");
    page.section("Files");
    files(&mut page);
    page.item("/run/wsnic-admin.sock", "Orders of root, see `admin_socket`.");
    page.item("/var/lib/wsnic", "A folder for `dhcp_lease_file`.");
    page.section("See also").text("wsnic(1), wsnic.conf(5), wsnic-priv(8)");
    page
}

fn files(page: &mut Page) {
    page.item("wsnic.conf, /etc/wsnic/wsnic.conf", "The configuration; the first that exists.");
}

/// What a program has beyond the options of the table.
fn own_options(page: &mut Page, command: &Command) {
    page.section("Options").text(
        "Every option of wsnic.conf(5), with two dashes before its name and dashes for \
         underscores, those that wsnic(1) has on the command line only, and",
    );
    for argument in own_arguments(command) {
        page.item(&term(argument), &help(argument));
    }
}

/// One option of wsnic.conf, in full.
fn describe(page: &mut Page, spec: &OptionSpec) {
    let value = if spec.metavar.is_empty() { "yes|no" } else { spec.metavar };
    page.item(&format!("`{}`=<{value}>", spec.name), spec.help);
    let mut facts = vec![spec.kind.manual()];
    if !spec.default.is_empty() && !spec.help.contains("Default: ") {
        facts.push(format!("Default: `{}`.", spec.default));
    }
    let former = spec.aliases.iter().copied().chain(spec.switches.iter().map(|switch| switch.name));
    let former: Vec<String> = former.map(|name| format!("`{name}`")).collect();
    if !former.is_empty() {
        facts.push(format!("Also: {}.", former.join(", ")));
    }
    if let Some(variable) = spec.env {
        facts.push(format!("In a container: `{variable}`."));
    }
    facts.retain(|fact| !fact.is_empty());
    if !facts.is_empty() {
        page.more(&facts.join(" "));
    }
}

fn options(group: Group, place: Place) -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(move |spec| spec.group == group && spec.place == place)
}

/// `-a`, `--ws-server-addr` <ADDRESSES>
fn option_term(spec: &OptionSpec) -> String {
    let short = spec.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let value = match spec.metavar {
        "" => String::new(),
        value => format!(" <{value}>"),
    };
    format!("{short}`--{}`{value}", spec.long())
}

/// How a word is used, as far as it has arguments of its own.
fn usage(word: &Command) -> String {
    let mut usage = format!("`wsnic {}`", word.get_name());
    for argument in own_arguments(word) {
        let term = term(argument);
        match (argument.is_positional(), argument.is_required_set()) {
            (true, true) => usage += &format!(" {term}"),
            (true, false) => usage += &format!(" [{term}]..."),
            _ => usage += &format!(" [{term}]"),
        }
    }
    if takes_options(word) { format!("{usage} [<OPTION>]...") } else { usage }
}

/// Whether a word understands the options of the table, all or some.
fn takes_options(word: &Command) -> bool {
    word.get_arguments().any(is_of_the_table) && word.get_name() != "token"
}

fn own_arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    let own = |argument: &&Arg| !argument.is_hide_set() && !is_of_the_table(argument);
    command.get_arguments().filter(own)
}

fn is_of_the_table(argument: &Arg) -> bool {
    OPTIONS.iter().any(|spec| argument.get_id() == spec.name)
}

fn term(argument: &Arg) -> String {
    let value = argument.get_value_names().and_then(|names| names.first());
    let value = value.map(ToString::to_string).unwrap_or_default();
    let Some(long) = argument.get_long() else { return format!("<{value}>") };
    let short = argument.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    match argument.get_action() {
        ArgAction::SetTrue | ArgAction::Count => format!("{short}`--{long}`"),
        _ => format!("{short}`--{long}` <{value}>"),
    }
}

fn help(argument: &Arg) -> String {
    sentence(&argument.get_help().map(ToString::to_string).unwrap_or_default())
}

/// The text with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
