//! The guests' networks as a whole: made in one go, kept in repair, taken away at the end.
//!
//! Order of the set-up: firewall first (it names the bridges by name), so that there is no moment in
//! which a guest could reach anything unguarded; then what an earlier run left is removed; then the
//! bridges. Whatever fails, what was done before it is undone.

use crate::bridge::Bridges;
use crate::firewall::{Firewall, FirewallError, NetworkPolicy, Note, Policy};
use crate::link::{BRIDGE_GROUP, DYING_GROUP, Link, Links, PORT_GROUP};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use wsnic_host::{bridge_name, resolver};
use wsnic_os::log::chain;
use wsnic_proto::notes;
use wsnic_proto::ports::Lan;
use wsnic_proto::rooms::RoomKey;
use wsnic_proto::settings::{GuestAccess, InterfaceName, Nat, Network as Options, Settings};

/// The network of the flat options.
const DEFAULT: Lan = Lan { network: 0, room: 0 };

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

/// Networks that are up.
pub struct Networks {
    links: Links,
    options: Vec<Options>,
    policy: Policy,
    firewall: Rc<RefCell<Firewall>>,
    bridges: Rc<Bridges>,
    /// What a helper that died has left: networks, and rooms with their keys.
    adopted: Vec<(Lan, Option<RoomKey>)>,
    /// Interfaces that forward because of us.
    forwarding: Vec<InterfaceName>,
    /// Interfaces by which guests' packets come and go.
    ways: Vec<InterfaceName>,
    /// How the host forwarded when that was last set right; see [`wsnic_host::routing`].
    routing: String,
}

impl Networks {
    /// Makes the networks; with `resume`, takes over those of a helper that died, as far as they are the
    /// same.
    ///
    /// # Errors
    /// Nothing is left behind in any case.
    pub async fn setup(
        settings: &Settings,
        links: Links,
        resume: bool,
    ) -> Result<Networks, NetworkError> {
        refuse_unfit(settings, &links).await?;
        let mut policy = policy(settings, &links).await;
        if let (true, Err(reason)) = (policy.is_deaf(), resolver()) {
            tracing::warn!("guests cannot resolve names: {reason}");
        }
        let all = links.all().await.map_err(link("look for bridges"))?;
        let default = bridge_name(DEFAULT, false);
        let old = all.iter().find(|link| link.name == default);
        policy.closed = old.map(|bridge| notes::read_forwarding(&bridge.alias)).unwrap_or_default();
        let (firewall, notes) = Firewall::install(&policy)?;
        notes.iter().for_each(Note::tell);
        let firewall = Rc::new(RefCell::new(firewall));
        let options: Vec<Options> = settings.networks().cloned().collect();
        let bridges = Bridges::new(links.clone(), Rc::clone(&firewall), options.clone());
        let mut networks = Networks {
            links,
            options,
            policy,
            firewall,
            bridges: Rc::new(bridges),
            adopted: Vec::new(),
            forwarding: Vec::new(),
            ways: Vec::new(),
            routing: String::new(),
        };
        if let Err(error) = networks.build(&all, resume).await {
            networks.teardown().await;
            return Err(error);
        }
        Ok(networks)
    }

    async fn build(&mut self, all: &[Link], resume: bool) -> Result<(), NetworkError> {
        let failed = link("remove what an earlier run left");
        if resume {
            self.links.delete_group(DYING_GROUP).await.map_err(&failed)?;
            for old in all.iter().filter(|link| wsnic_host::lan_of(&link.name).is_some()) {
                if let Some(adopted) = self.bridges.adopt(old) {
                    self.adopted.push(adopted);
                } else {
                    tracing::info!(bridge = old.name, "removing a bridge of an earlier run");
                    self.links.delete(&old.name).await.map_err(&failed)?;
                }
            }
            self.forwarding = self.policy.closed.clone();
        } else {
            if all.iter().any(|link| link.group == BRIDGE_GROUP) {
                tracing::info!("removing the bridges that an earlier run left");
            }
            remove(&self.links, &self.policy.closed).await.map_err(failed)?;
        }
        for lan in self.bridges.missing() {
            self.bridges.make(lan, None).await.map_err(link("make the bridge"))?;
        }
        self.forward().await
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
            self.firewall.borrow_mut().update(&policy)?.iter().for_each(Note::tell);
            self.policy = policy;
        }
        // Written before the change, so that a run that is killed can be cleaned up by the next.
        let note = self.bridges.note(DEFAULT, None).unwrap_or_default();
        let note = format!("{note} {}", InterfaceName::join(&self.policy.closed, " "));
        let noted = self.links.set_alias(&self.bridges.name(DEFAULT), &note).await;
        noted.map_err(link("note the forwarding state"))?;
        self.forwarding = self.policy.closed.clone();
        for name in off {
            let turned_on = self.links.set_forwarding(name.as_str(), true).await;
            turned_on.map_err(link("turn on forwarding"))?;
        }
        for (number, policy) in (0..).zip(&self.policy.networks) {
            if !policy.uplinks.is_empty() {
                let turned_on = self.bridges.forward(number).await;
                turned_on.map_err(link("turn on forwarding"))?;
            }
        }
        self.ways = ways;
        self.routing = self.routing_now();
        Ok(())
    }

    fn routing_now(&self) -> String {
        let numbers = (0..).zip(&self.options).filter(|(_, network)| network.rooms.is_none());
        let bridges: Vec<String> =
            numbers.map(|(network, _)| self.bridges.name(Lan { network, room: 0 })).collect();
        let ways = self.ways.iter().map(InterfaceName::as_str);
        wsnic_host::routing(ways.chain(bridges.iter().map(String::as_str)))
    }

    /// The interfaces by which guests' packets may leave and answers come back.
    async fn ways_out(&self) -> io::Result<Vec<InterfaceName>> {
        let mut ways: Vec<InterfaceName> = Vec::new();
        for policy in self.policy.networks.iter().filter(|policy| !policy.uplinks.is_empty()) {
            let all = policy.access != GuestAccess::Internet;
            let more = wsnic_host::ways_to(policy.named().into_iter(), all, &self.links).await?;
            for name in policy.uplinks.iter().cloned().chain(more) {
                if !ways.contains(&name) {
                    ways.push(name);
                }
            }
        }
        Ok(ways)
    }

    /// Follows the host: another default route, other resolvers, rules or settings of others.
    pub async fn refresh(&mut self) {
        let mut policy = self.policy.clone();
        for (options, policy) in self.options.iter().zip(&mut policy.networks) {
            look_up(options, &self.links, policy).await;
        }
        let moved = policy != self.policy;
        if moved {
            let network = &policy.networks[0];
            let (uplink, resolver) =
                (InterfaceName::join(&network.uplinks, ", "), network.resolver);
            tracing::info!(uplink, ?resolver, "the host's network has changed");
        }
        let notes = match moved {
            true => self.firewall.borrow_mut().update(&policy),
            false => self.firewall.borrow_mut().verify(),
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
        match self.firewall.borrow_mut().update(&policy) {
            Ok(notes) => notes.iter().for_each(Note::tell),
            Err(error) => return tracing::error!("not reloaded: {}", chain(&error)),
        }
        self.policy = policy;
        self.options = settings.networks().cloned().collect();
        self.forward_or_say().await;
        self.summaries().iter().for_each(|summary| tracing::info!("reloaded: {summary}"));
    }

    /// [`Networks::forward`] after a bridge was made again, or the host has changed.
    pub async fn forward_or_say(&mut self) {
        if let Err(error) = self.forward().await {
            tracing::error!("guests may not reach the Internet: {}", chain(&error));
        }
    }

    /// How they are configured.
    pub fn options(&self) -> &[Options] {
        &self.options
    }

    /// The bridges.
    pub fn bridges(&self) -> &Rc<Bridges> {
        &self.bridges
    }

    /// The firewall.
    pub fn firewall(&self) -> &Rc<RefCell<Firewall>> {
        &self.firewall
    }

    /// What was taken over of a helper that died: networks, and rooms with their keys.
    pub fn adopted(&self) -> &[(Lan, Option<RoomKey>)] {
        &self.adopted
    }

    /// A line for the log for each network: what its guests may reach.
    pub fn summaries(&self) -> Vec<String> {
        self.policy.summaries(&self.options)
    }

    /// Removes everything that was made; what fails is logged and the rest is still removed.
    pub async fn teardown(self) {
        // What failed has been logged.
        let _ = remove(&self.links, &self.forwarding).await;
        for error in self.firewall.borrow_mut().teardown() {
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
    let mut policy = Policy::of(settings);
    for (options, policy) in settings.networks().zip(&mut policy.networks) {
        look_up(options, links, policy).await;
    }
    policy
}

/// What the host is like at the moment: its way out and its resolver.
async fn look_up(options: &Options, links: &Links, policy: &mut NetworkPolicy) {
    let uplink = wsnic_host::way_out(&options.nat, links).await;
    let uplink =
        uplink.inspect_err(|error| tracing::warn!(%error, "cannot look up the default route"));
    policy.uplinks = uplink.ok().flatten().into_iter().collect();
    policy.resolver = match policy.nameservers.first() {
        _ if options.nat == Nat::Off || policy.dns_on_host => None,
        Some(server) => Some(*server),
        None => resolver().ok(),
    };
}

/// What would make the start fail, or harm what is there.
async fn refuse_unfit(settings: &Settings, links: &Links) -> Result<(), NetworkError> {
    let problems = wsnic_host::problems(settings, links).await;
    let problems = problems.map_err(link("look at the interfaces"))?;
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if problems.is_empty() { Ok(()) } else { Err(NetworkError::Unfit(problems.join("; "))) }
}
