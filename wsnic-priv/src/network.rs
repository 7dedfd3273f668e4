//! The guests' network as a whole: made in one go, kept in repair, taken away at the end.
//!
//! Order of the set-up: firewall first (it names the bridge by name), so that there is no moment in
//! which a guest could reach anything unguarded; then what an earlier run left is removed; then the
//! bridge. Whatever fails, what was done before it is undone.

use crate::firewall::{Firewall, FirewallError, Note, Policy};
use crate::link::{BRIDGE, BRIDGE_GROUP, DYING_GROUP, Link, Links, PORT_GROUP};
use crate::sysctl;
use std::io;
use wsnic_host::resolver;
use wsnic_os::log::chain;
use wsnic_proto::MacAddr;
use wsnic_proto::settings::{
    DhcpService, GuestAccess, InterfaceName, Nat, Network as Options, Settings,
};

/// Begins the note on the bridge: what it was made for, and which interfaces forward because of us.
const ALIAS: &str = "wsnic";

/// Why the network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The machine or the configuration stands in the way.
    #[error("{0}")]
    Unfit(String),
    /// A netlink request failed.
    #[error("cannot {0}")]
    Link(&'static str, #[source] io::Error),
    /// A firewall request failed.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

fn link(action: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::Link(action, source)
}

/// A network that is up.
pub struct Network {
    links: Links,
    options: Options,
    policy: Policy,
    firewall: Firewall,
    /// Interfaces that forward because of us.
    forwarding: Vec<InterfaceName>,
    /// Interfaces by which guests' packets come and go.
    ways: Vec<InterfaceName>,
    /// How the host forwarded when that was last set right; see [`wsnic_host::routing`].
    routing: String,
    bridge_mac: MacAddr,
    bridge: u32,
}

impl Network {
    /// Makes the network; with `resume`, takes over that of a helper that died, if it is the same.
    ///
    /// # Errors
    /// Nothing is left behind in any case.
    pub async fn setup(
        settings: &Settings,
        links: Links,
        resume: bool,
    ) -> Result<Network, NetworkError> {
        refuse_unfit(settings, &links).await?;
        let mut policy = policy(settings, &links).await;
        if let (true, None, Err(reason)) =
            (settings.network.nat != Nat::Off, policy.resolver, resolver())
        {
            tracing::warn!("guests cannot resolve names: {reason}");
        }
        let old = links.find(BRIDGE).await.map_err(link("look for the bridge"))?;
        policy.closed = old.as_ref().map(|bridge| forwarding_in(&bridge.alias)).unwrap_or_default();
        let (firewall, notes) = Firewall::install(&policy)?;
        notes.iter().for_each(Note::tell);
        let mut network = Network {
            links,
            options: settings.network.clone(),
            policy,
            firewall,
            forwarding: Vec::new(),
            ways: Vec::new(),
            routing: String::new(),
            bridge_mac: wsnic_host::bridge_mac(),
            bridge: 0,
        };
        if let Err(error) = network.build(old, resume).await {
            network.teardown().await;
            return Err(error);
        }
        Ok(network)
    }

    async fn build(&mut self, old: Option<Link>, resume: bool) -> Result<(), NetworkError> {
        let left = self.policy.closed.clone();
        match old {
            Some(old) if resume && old.alias.starts_with(&format!("{} ", self.purpose())) => {
                self.forwarding = left;
                self.bridge = old.index;
            }
            old => {
                if old.is_some() {
                    tracing::info!("removing the bridge that an earlier run left");
                }
                let removed = remove(&self.links, &left).await;
                removed.map_err(link("remove what an earlier run left"))?;
                self.add_bridge().await?;
            }
        }
        self.forward().await
    }

    /// What the bridge is made for; a bridge with another note is not taken over.
    fn purpose(&self) -> String {
        format!("{ALIAS} {} {}", self.options.plan.subnet(), self.options.mtu)
    }

    async fn add_bridge(&mut self) -> Result<(), NetworkError> {
        let plan = self.options.plan;
        self.links
            .add_bridge(BRIDGE, self.bridge_mac, self.options.mtu)
            .await
            .map_err(link("make the bridge"))?;
        sysctl::disable_ipv6(BRIDGE);
        self.links
            .set_up(BRIDGE, plan.gateway(), plan.subnet().prefix_len())
            .await
            .map_err(link("set the bridge up"))?;
        let bridge = self.links.find(BRIDGE).await.map_err(link("find the bridge"))?;
        let gone = || link("find the bridge")(io::ErrorKind::NotFound.into());
        self.bridge = bridge.ok_or_else(gone)?.index;
        Ok(())
    }

    /// Turns on forwarding where packets between guests and the world come in, and nowhere else.
    ///
    /// Where it was off, the guard first closes the interface to all but guests' traffic, so that
    /// the host does not become a router between its own networks.
    async fn forward(&mut self) -> Result<(), NetworkError> {
        let ways = self.ways_out().await.map_err(link("look up routes"))?;
        let links = self.links.all().await.map_err(link("look at the interfaces"))?;
        let is_off = |name: &InterfaceName| {
            links.iter().any(|link| !link.forwarding && link.name == name.as_str())
        };
        let off: Vec<InterfaceName> = ways.iter().filter(|name| is_off(name)).cloned().collect();
        let mut policy = self.policy.clone();
        if wsnic_host::forwards_everything() {
            // The operator has made this host a router: that is not ours to narrow or to undo.
            policy.closed.clear();
        } else {
            let new = off.iter().filter(|name| !self.forwarding.contains(name));
            policy.closed = self.forwarding.iter().chain(new).cloned().collect();
        }
        if policy != self.policy {
            self.firewall.update(&policy)?.iter().for_each(Note::tell);
            self.policy = policy;
        }
        // Written before the change, so that a run that is killed can be cleaned up by the next.
        let note = format!("{} {}", self.purpose(), names(&self.policy.closed, " "));
        self.links.set_alias(BRIDGE, &note).await.map_err(link("note the forwarding state"))?;
        self.forwarding = self.policy.closed.clone();
        for name in off {
            let turned_on = self.links.set_forwarding(name.as_str(), true).await;
            turned_on.map_err(link("turn on forwarding"))?;
        }
        if !ways.is_empty() {
            let turned_on = self.links.set_forwarding(BRIDGE, true).await;
            turned_on.map_err(link("turn on forwarding"))?;
        }
        self.ways = ways;
        self.routing = self.routing_now();
        Ok(())
    }

    fn routing_now(&self) -> String {
        wsnic_host::routing(self.ways.iter().map(InterfaceName::as_str).chain([BRIDGE]))
    }

    /// The interfaces by which guests' packets may leave and answers come back.
    async fn ways_out(&self) -> io::Result<Vec<InterfaceName>> {
        let mut ways = self.policy.uplinks.clone();
        if ways.is_empty() {
            return Ok(ways);
        }
        let allowed = self.policy.allow.iter().map(|block| block.network());
        let named = allowed.chain(self.policy.resolver).chain(self.policy.nameservers.clone());
        let all = self.policy.access != GuestAccess::Internet;
        for name in wsnic_host::ways_to(named, all, &self.links).await? {
            if !ways.contains(&name) {
                ways.push(name);
            }
        }
        Ok(ways)
    }

    /// Follows the host: another default route, other resolvers, rules or settings of others.
    pub async fn refresh(&mut self) {
        let mut policy = self.policy.clone();
        look_up(&self.options, &self.links, &mut policy).await;
        let moved = policy != self.policy;
        if moved {
            let (uplink, resolver) = (names(&policy.uplinks, ", "), policy.resolver);
            tracing::info!(uplink, ?resolver, "the host's network has changed");
        }
        let notes = match moved {
            true => self.firewall.update(&policy),
            false => self.firewall.verify(),
        };
        match notes {
            Ok(notes) => notes.iter().for_each(Note::tell),
            Err(error) => return tracing::error!("{}", chain(&error)),
        }
        self.policy = policy;
        let rerouted = self.routing != self.routing_now();
        if rerouted {
            tracing::info!("somebody has changed how this host forwards packets, following");
        }
        if moved || rerouted {
            self.forward_or_say().await;
        }
    }

    /// Puts other rules for guests in force, as far as [`Settings::reload`] lets them change.
    pub async fn reload(&mut self, settings: &Settings) {
        let closed = self.policy.closed.clone();
        let policy = Policy { closed, ..policy(settings, &self.links).await };
        match self.firewall.update(&policy) {
            Ok(notes) => notes.iter().for_each(Note::tell),
            Err(error) => return tracing::error!("not reloaded: {}", chain(&error)),
        }
        self.policy = policy;
        self.options = settings.network.clone();
        self.forward_or_say().await;
        tracing::info!("reloaded: {}", self.summary());
    }

    async fn forward_or_say(&mut self) {
        if let Err(error) = self.forward().await {
            tracing::error!("guests may not reach the Internet: {}", chain(&error));
        }
    }

    /// The bridge has been deleted by somebody: makes it again, without ports. Its index is 0 if
    /// that fails, and this is to be called again.
    pub async fn repair(&mut self) {
        let is_first = std::mem::take(&mut self.bridge) != 0;
        // What an attempt before this one has left.
        let cleared = self.links.delete_group(BRIDGE_GROUP).await;
        let made = match cleared.map_err(link("remove half a bridge")) {
            Ok(()) => self.add_bridge().await,
            failed => failed,
        };
        match made {
            Ok(()) => {
                tracing::info!("the bridge {BRIDGE} is back");
                self.forward_or_say().await;
            }
            Err(error) if is_first => {
                tracing::error!("guests have no network, trying again: {}", chain(&error));
            }
            // Said before.
            Err(_) => {}
        }
    }

    /// Index of the bridge's interface; 0 when it could not be made again.
    pub fn bridge(&self) -> u32 {
        self.bridge
    }

    /// The bridge's address, which guests know as the gateway's.
    pub fn bridge_mac(&self) -> MacAddr {
        self.bridge_mac
    }

    /// One line for the log: what guests may reach.
    pub fn summary(&self) -> String {
        self.options.summary(&self.policy.uplinks, self.policy.resolver)
    }

    /// Removes everything that was made; what fails is logged and the rest is still removed.
    pub async fn teardown(self) {
        // What failed has been logged.
        let _ = remove(&self.links, &self.forwarding).await;
        for error in self.firewall.teardown() {
            tracing::warn!("{}", chain(&error));
        }
    }
}

/// Takes away what a run has made, all that can be; gives the last failure.
async fn remove(links: &Links, forwarding: &[InterfaceName]) -> io::Result<()> {
    for name in forwarding {
        // It may be gone, as on a laptop that was moved.
        if let Err(error) = links.set_forwarding(name.as_str(), false).await {
            tracing::warn!(%error, interface = %name, "cannot restore forwarding");
        }
    }
    let mut outcome = Ok(());
    for group in [PORT_GROUP, DYING_GROUP, BRIDGE_GROUP] {
        if let Err(error) = links.delete_group(group).await {
            tracing::warn!(%error, "cannot remove interfaces");
            outcome = Err(error);
        }
    }
    outcome
}

/// What the firewall is to hold, on this host as it is at the moment.
async fn policy(settings: &Settings, links: &Links) -> Policy {
    let mut policy = Policy {
        bridge: InterfaceName::new(BRIDGE).expect("the bridge's name is one that the kernel takes"),
        plan: settings.network.plan,
        uplinks: Vec::new(),
        access: settings.network.guest_access,
        allow: settings.network.allow.clone(),
        deny: settings.network.deny.clone(),
        nameservers: settings.dhcp.nameservers.clone(),
        resolver: None,
        closed: Vec::new(),
        dhcp_on_host: settings.dhcp.service != DhcpService::Builtin,
        host_firewall: settings.network.host_firewall,
    };
    look_up(&settings.network, links, &mut policy).await;
    policy
}

/// What the host is like at the moment: its way out and its resolver.
async fn look_up(options: &Options, links: &Links, policy: &mut Policy) {
    let uplink = wsnic_host::way_out(&options.nat, links).await;
    let uplink =
        uplink.inspect_err(|error| tracing::warn!(%error, "cannot look up the default route"));
    policy.uplinks = uplink.ok().flatten().into_iter().collect();
    policy.resolver = match policy.nameservers.first() {
        _ if options.nat == Nat::Off => None,
        Some(server) => Some(*server),
        None => resolver().ok(),
    };
}

/// What would make the start fail, or harm what is there.
async fn refuse_unfit(settings: &Settings, links: &Links) -> Result<(), NetworkError> {
    let problems = wsnic_host::problems(&settings.network, links).await;
    let problems = problems.map_err(link("look at the interfaces"))?;
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if problems.is_empty() { Ok(()) } else { Err(NetworkError::Unfit(problems.join("; "))) }
}

/// The interfaces that forward because of a helper that died: behind "wsnic", subnet and MTU.
fn forwarding_in(note: &str) -> Vec<InterfaceName> {
    note.split_ascii_whitespace().skip(3).filter_map(InterfaceName::new).collect()
}

fn names(interfaces: &[InterfaceName], between: &str) -> String {
    let names: Vec<&str> = interfaces.iter().map(InterfaceName::as_str).collect();
    names.join(between)
}
