//! What guests may reach, kept by the kernel: guard, address translation, a way through the host's
//! own firewall where the configuration asks for it.
//!
//! Runs in the helper; `network.rs` installs it before the first port exists, updates it when the way
//! out changes, has it verified now and then, and tears it down after the last port is gone. All
//! calls block for milliseconds at most. It executes no program and touches no interface.
//!
//! Two tables belong to this process's netlink socket, which no other process can change and which
//! `nft flush ruleset` passes over: `inet wsnic_guard` stays when the process dies (guests of a
//! front-end that lives on stay contained), `ip wsnic_nat` goes with it. The next start replaces what
//! stayed in one transaction, without an unprotected moment. Dropping a [`Firewall`] has the effect
//! of dying; [`Firewall::teardown`] removes everything.

mod guard;
mod nat;
mod open;
#[cfg(test)]
mod tests;

use nix::libc::{EINVAL, EOPNOTSUPP};
use std::net::Ipv4Addr;
use wsnic_nft::{Batch, Netfilter, NftError, TableFlags, TableInfo};
use wsnic_os::log::chain;
use wsnic_proto::settings::{GuestAccess, HostFirewall, InterfaceName};
use wsnic_proto::{Cidr, Plan};

/// What is to hold for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The guests' bridge; need not exist yet.
    pub(crate) bridge: InterfaceName,
    /// Its subnet and the gateway's address.
    pub(crate) plan: Plan,
    /// Interfaces to the Internet; empty: guests reach nothing beyond the host.
    pub(crate) uplinks: Vec<InterfaceName>,
    /// What they may reach beyond the bridge.
    pub(crate) access: GuestAccess,
    /// Blocks that they may reach although `access` says no.
    pub(crate) allow: Vec<Cidr>,
    /// Blocks that they may not reach, whatever the rest says (but see `resolver`).
    pub(crate) deny: Vec<Cidr>,
    /// Name servers announced to guests as they are; their port 53 is reachable unless denied.
    pub(crate) nameservers: Vec<Ipv4Addr>,
    /// Where questions to the gateway's port 53 go, even inside `deny`: it is the gateway that asks.
    /// The kernel sends nothing from the bridge to a loopback address.
    pub(crate) resolver: Option<Ipv4Addr>,
    /// Interfaces that forward because of guests: nothing else that comes in by them is forwarded.
    pub(crate) closed: Vec<InterfaceName>,
    /// Whether a DHCP server listens on the host.
    pub(crate) dhcp_on_host: bool,
    /// Whether to open the host's own firewall for guests.
    pub(crate) host_firewall: HostFirewall,
}

/// Something to log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Note {
    /// An earlier run left tables or rules, so many in all.
    #[error("replaced {0} firewall tables or rules that an earlier run left")]
    LeftoversReplaced(usize),
    /// The kernel is older than 6.9.
    #[error(
        "this kernel (before 6.9) removes the guard when the helper dies: guests are not contained \
         until it runs again"
    )]
    GuardEndsWithHelper,
    /// The kernel is older than 5.12.
    #[error(
        "this kernel (before 5.12) does not protect wsnic's tables: do not run \"nft flush ruleset\" \
         while wsnic runs"
    )]
    TablesUnowned,
    /// Somebody had removed our tables.
    #[error("wsnic's firewall tables had been removed, restored them")]
    Restored,
    /// A chain of the host's firewall has got two rules of ours.
    #[error("opened {0} for guests")]
    Opened(String),
    /// It could not be opened, or none could be read.
    #[error("host_firewall=open: cannot open {} for guests: {}", .0, chain(.1))]
    NotOpened(String, NftError),
}

impl Note {
    /// Writes it to the log.
    pub(crate) fn tell(&self) {
        match self {
            Note::LeftoversReplaced(_) | Note::Opened(_) => tracing::info!("{self}"),
            _ => tracing::warn!("{self}"),
        }
    }
}

/// Why the guests' firewall does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    /// A running process has our table.
    #[error(
        "table {0} belongs to another running process: another wsnic runs in this network \
         namespace, stop it first"
    )]
    OtherInstance(String),
    /// nf_tables did not do what was asked.
    #[error("cannot {0}")]
    NfTables(&'static str, #[source] NftError),
}

/// The firewall of a running helper.
pub(crate) struct Firewall {
    nf: Netfilter,
    policy: Policy,
    /// Which of `OWNERSHIP` this kernel takes.
    ownership: usize,
    /// nf_tables' generation when [`Firewall::verify`] last looked; 0 (none that is real): never.
    generation: u32,
    /// Chains that could not be opened, already told.
    refused: Vec<String>,
}

impl Firewall {
    /// Makes both tables, in place of an earlier run's, and opens the host's firewall if asked to.
    ///
    /// # Errors
    /// Another wsnic runs here, CAP_NET_ADMIN is missing, or the kernel lacks nf_tables.
    pub(crate) fn install(policy: &Policy) -> Result<(Firewall, Vec<Note>), FirewallError> {
        Firewall::install_with(policy, 0)
    }

    fn install_with(
        policy: &Policy,
        ownership: usize,
    ) -> Result<(Firewall, Vec<Note>), FirewallError> {
        let nf = Netfilter::open().map_err(failed("open nf_tables"))?;
        let policy = policy.clone();
        let mut firewall = Firewall { nf, policy, ownership, generation: 0, refused: vec![] };
        let mut count = firewall.replace_tables()?;
        // Rules of ours in others' chains can only be a killed run's.
        count += open::close(&mut firewall.nf, &firewall.policy.bridge).0;
        let mut notes = Vec::new();
        if count > 0 {
            notes.push(Note::LeftoversReplaced(count));
        }
        match firewall.ownership {
            0 => {}
            1 => notes.push(Note::GuardEndsWithHelper),
            _ => notes.push(Note::TablesUnowned),
        }
        notes.extend(firewall.open_host());
        Ok((firewall, notes))
    }

    /// Puts `policy`, for the same bridge, in place of the present one, in one transaction.
    /// Connections that passed go on, but for those that `deny` now names.
    ///
    /// # Errors
    /// As [`Firewall::install`]; the present policy then stays.
    pub(crate) fn update(&mut self, policy: &Policy) -> Result<Vec<Note>, FirewallError> {
        let previous = std::mem::replace(&mut self.policy, policy.clone());
        if let Err(error) = self.replace_tables() {
            self.policy = previous;
            return Err(error);
        }
        if previous.host_firewall != policy.host_firewall {
            open::close(&mut self.nf, &previous.bridge);
        }
        Ok(self.open_host())
    }

    /// Restores what somebody else removed, and opens what somebody else made. Costs one short
    /// question while nobody has changed anything.
    ///
    /// # Errors
    /// As [`Firewall::install`].
    pub(crate) fn verify(&mut self) -> Result<Vec<Note>, FirewallError> {
        let doing = "check the firewall";
        // Taken before looking: what changes meanwhile is seen the next time, as are our own changes.
        let generation = self.nf.generation().map_err(failed(doing))?;
        if generation == self.generation {
            return Ok(vec![]);
        }
        self.generation = generation;
        let mut notes = Vec::new();
        let owner = Some(self.nf.port());
        let present = own_tables(&mut self.nf).map_err(failed(doing))?;
        let owned = present.iter().filter(|info| info.owner == owner).count();
        // Tables without an owner may have been emptied too.
        if owned < 2 {
            self.replace_tables()?;
            self.generation = self.nf.generation().map_err(failed(doing))?;
            if present.len() < 2 {
                notes.push(Note::Restored);
            }
        }
        notes.extend(self.open_host());
        Ok(notes)
    }

    /// Removes both tables and our rules in others' chains. To be called when guests have no way to
    /// the host any more.
    pub(crate) fn teardown(mut self) -> Vec<FirewallError> {
        let (_, errors) = open::close(&mut self.nf, &self.policy.bridge);
        let operation = "remove the accept rules from the host's firewall";
        let mut errors: Vec<_> = errors.into_iter().map(failed(operation)).collect();
        let operation = "remove the firewall";
        let removed = own_tables(&mut self.nf).and_then(|present| {
            let mut batch = Batch::default();
            present.iter().for_each(|info| batch.delete_table(&info.table));
            self.nf.commit(batch)
        });
        errors.extend(removed.err().map(failed(operation)));
        errors
    }

    /// Deletes our tables where there are some and makes them anew, all in one batch; gives how many
    /// were there.
    fn replace_tables(&mut self) -> Result<usize, FirewallError> {
        let doing = "set up the firewall";
        let present = own_tables(&mut self.nf).map_err(failed(doing))?;
        let port = self.nf.port();
        for info in &present {
            if info.owner.is_some_and(|owner| owner != port) {
                return Err(FirewallError::OtherInstance(info.table.to_string()));
            }
        }
        loop {
            let (guard_flags, nat_flags) = OWNERSHIP[self.ownership];
            let mut batch = Batch::default();
            present.iter().for_each(|info| batch.delete_table(&info.table));
            let first_new = batch.len();
            batch.new_table(&guard::table(), guard_flags);
            guard::build(&mut batch, &self.policy);
            batch.new_table(&nat::table(), nat_flags);
            nat::build(&mut batch, &self.policy);
            match self.nf.commit(batch) {
                Ok(()) => break,
                // An older kernel does not know the flags.
                Err(NftError::Refused { message: Some(place), ref source, .. })
                    if place == first_new
                        && matches!(source.raw_os_error(), Some(EINVAL | EOPNOTSUPP))
                        && self.ownership + 1 < OWNERSHIP.len() =>
                {
                    self.ownership += 1;
                }
                Err(error) => return Err(failed(doing)(error)),
            }
        }
        Ok(present.len())
    }

    /// Opens the host's firewall, if so configured, where it is not open yet.
    fn open_host(&mut self) -> Vec<Note> {
        if self.policy.host_firewall != HostFirewall::Open || self.policy.uplinks.is_empty() {
            return vec![];
        }
        let bridge = &self.policy.bridge;
        let mut notes = Vec::new();
        let mut refuse = |name: String, error| {
            if !self.refused.contains(&name) {
                self.refused.push(name.clone());
                notes.push(Note::NotOpened(name, error));
            }
        };
        let mut opened = Vec::new();
        match open::chains(&mut self.nf, bridge) {
            Ok(chains) => {
                for chain in chains.iter().filter(|chain| !chain.is_open()) {
                    match chain.open(&mut self.nf, bridge) {
                        Ok(()) => opened.push(Note::Opened(chain.name())),
                        Err(error) => refuse(chain.name(), error),
                    }
                }
            }
            Err(error) => refuse("the host's firewall".to_owned(), error),
        }
        notes.extend(opened);
        notes
    }
}

/// Those of our two tables that are there, whoever made them.
fn own_tables(nf: &mut Netfilter) -> Result<Vec<TableInfo>, NftError> {
    let ours = [guard::table(), nat::table()];
    Ok(nf.tables()?.into_iter().filter(|info| ours.contains(&info.table)).collect())
}

fn failed(operation: &'static str) -> impl Fn(NftError) -> FirewallError {
    move |source| FirewallError::NfTables(operation, source)
}

/// Flags of guard and NAT, the best first; see [`TableFlags`] for which kernel knows what.
const OWNERSHIP: [(TableFlags, TableFlags); 3] = [
    (TableFlags::OWNER_PERSIST, TableFlags::OWNER),
    (TableFlags::OWNER, TableFlags::OWNER),
    (TableFlags::NONE, TableFlags::NONE),
];
