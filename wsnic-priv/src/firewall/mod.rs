//! What guests may send and reach, kept by the kernel: guard, address translation, locks of ports, and a
//! way through the host's own firewall where the configuration asks for it. The rules themselves are
//! `wsnic-rules`'.
//!
//! Runs in the helper; `network.rs` installs it before the first port exists, updates it when the way
//! out changes, has it verified now and then, and tears it down after the last port is gone. All
//! calls block for milliseconds at most. It executes no program and touches no interface.
//!
//! The tables belong to this process's netlink socket, which no other process can change and which
//! `nft flush ruleset` passes over: `inet wsnic_guard` and `bridge wsnic_ports` stay when the process
//! dies (guests of a front-end that lives on stay contained), `ip wsnic_nat` goes with it. The next start
//! replaces what stayed in one transaction, without an unprotected moment, and takes over the addresses
//! that were bound. Dropping a [`Firewall`] has the effect of dying; [`Firewall::teardown`] removes
//! everything.

#[cfg(test)]
mod tests;

use nix::libc::{EINVAL, ENOENT, EOPNOTSUPP};
use wsnic_nft::{Batch, Netfilter, NftError, TableFlags, TableInfo};
use wsnic_os::log::chain;
use wsnic_proto::Cidr;
use wsnic_proto::settings::HostFirewall;
#[cfg(test)]
pub(crate) use wsnic_rules::Bridge;
use wsnic_rules::{Bound, Change, Foreign, Kernel};
pub(crate) use wsnic_rules::{NetworkPolicy, Pair, Policy, Port};

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
    /// The kernel is older than 5.18.
    #[error(
        "this kernel (before 5.18) cannot lock the ports of a bridge: rules hold guests to their MAC \
         addresses instead, which costs more and ends with the helper on kernels before 6.9"
    )]
    NoBridgeLocks,
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
    /// What the sets hold.
    bound: Bound,
    /// How many tables there are to be.
    tables: usize,
    /// Which of `OWNERSHIP` this kernel takes.
    ownership: usize,
    /// Whether the kernel's bridge holds ports to their MAC addresses.
    bridge_locks: bool,
    /// nf_tables' generation when [`Firewall::verify`] last looked; 0 (none that is real): never.
    generation: u32,
    /// Chains that could not be opened, already told.
    refused: Vec<String>,
}

impl Firewall {
    /// Makes the tables, in place of an earlier run's, and opens the host's firewall if asked to. What
    /// an earlier run had bound stays bound.
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
        let mut nf = Netfilter::open().map_err(failed("open nf_tables"))?;
        let policy = policy.clone();
        let bound = Bound::read(&policy, |set| nf.elements(set));
        let bound = bound.map_err(failed("read what is bound"))?;
        let (bridge_locks, generation, refused) = (true, 0, vec![]);
        let mut firewall =
            Firewall { nf, policy, bound, tables: 0, ownership, bridge_locks, generation, refused };
        let mut count = firewall.replace_tables()?;
        // Rules of ours in others' chains can only be a killed run's.
        count += firewall.close_host().0;
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

    /// Puts `policy` in place of the present one, in one transaction.
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
            self.close_host();
        }
        Ok(self.open_host())
    }

    /// Restores what somebody else removed, and opens what somebody else made. Costs one short
    /// question while nobody else has changed anything.
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
        let is_less = present.len() < self.tables;
        // Tables without an owner may have been emptied too.
        if owned < self.tables {
            self.replace_tables()?;
            self.generation = self.nf.generation().map_err(failed(doing))?;
            if is_less {
                notes.push(Note::Restored);
            }
        }
        notes.extend(self.open_host());
        Ok(notes)
    }

    /// What a port uses as its addresses from now on, instead of what it had; to be called for every
    /// port before its fd is handed out, with no address if none is bound.
    ///
    /// # Errors
    /// What the kernel says; nothing has changed then.
    pub(crate) fn bind(
        &mut self,
        port: u32,
        network: u16,
        pairs: &[Pair],
    ) -> Result<(), FirewallError> {
        self.change([Change::Port(port, Some(Port { network, pairs: pairs.to_vec() }))])
    }

    /// These ports are gone.
    ///
    /// # Errors
    /// As [`Firewall::bind`].
    pub(crate) fn unbind(&mut self, ports: &[u32]) -> Result<(), FirewallError> {
        self.change(ports.iter().map(|port| Change::Port(*port, None)))
    }

    /// Guests on this bridge have addresses of this subnet.
    ///
    /// # Errors
    /// As [`Firewall::bind`].
    pub(crate) fn add_room(&mut self, bridge: u32, subnet: Cidr) -> Result<(), FirewallError> {
        self.change([Change::Room(bridge, Some(subnet.network()))])
    }

    /// These bridges are gone.
    ///
    /// # Errors
    /// As [`Firewall::bind`].
    pub(crate) fn remove_rooms(&mut self, bridges: &[u32]) -> Result<(), FirewallError> {
        self.change(bridges.iter().map(|bridge| Change::Room(*bridge, None)))
    }

    /// The kernel's bridge knows no locked ports: rules have to hold them to their MAC addresses.
    ///
    /// # Errors
    /// As [`Firewall::install`].
    pub(crate) fn do_without_bridge_locks(&mut self) -> Result<Vec<Note>, FirewallError> {
        if !std::mem::take(&mut self.bridge_locks) {
            return Ok(vec![]);
        }
        self.replace_tables()?;
        Ok(vec![Note::NoBridgeLocks])
    }

    /// Of what an earlier run had bound, nothing is left but these interfaces.
    ///
    /// # Errors
    /// As [`Firewall::bind`].
    pub(crate) fn retain(&mut self, interfaces: &[u32]) -> Result<(), FirewallError> {
        self.change(self.bound.all_but(interfaces))
    }

    /// What a port has, such as by an earlier run.
    pub(crate) fn bound(&self, port: u32) -> Option<&Port> {
        self.bound.of(port)
    }

    fn change(&mut self, wanted: impl IntoIterator<Item = Change>) -> Result<(), FirewallError> {
        let mut batch = Batch::default();
        let undo = self.bound.change(&mut batch, &self.policy, wanted);
        let is_nothing = batch.is_empty();
        let done = match self.nf.commit(batch) {
            Ok(()) => {
                // What only this has changed needs no look at all tables.
                let seen = self.generation.wrapping_add(u32::from(!is_nothing));
                if self.generation != 0 && self.nf.generation().is_ok_and(|now| now == seen) {
                    self.generation = seen;
                }
                Ok(())
            }
            // Somebody has removed the table or its elements: all come back.
            Err(error) if error.errno() == Some(ENOENT) => self.replace_tables().map(|_| ()),
            Err(error) => Err(failed("bind addresses")(error)),
        };
        if done.is_err() {
            self.bound.change(&mut Batch::default(), &self.policy, undo);
        }
        done
    }

    /// Removes the tables and our rules in others' chains. To be called when guests have no way to
    /// the host any more.
    pub(crate) fn teardown(&mut self) -> Vec<FirewallError> {
        let (_, errors) = self.close_host();
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
            let (guard, nat) = OWNERSHIP[self.ownership];
            let mut batch = Batch::default();
            present.iter().for_each(|info| batch.delete_table(&info.table));
            let first_new = batch.len();
            let kernel = Kernel { guard, nat, bridge_locks: self.bridge_locks };
            self.tables = wsnic_rules::build(&mut batch, &self.policy, &self.bound, kernel);
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

    fn foreign(&mut self) -> Result<Vec<Foreign>, NftError> {
        let chains = self.nf.chains()?;
        Foreign::among(chains, |table| match self.nf.rules(table) {
            Err(error) if error.errno() == Some(ENOENT) => Ok(None),
            rules => rules.map(Some),
        })
    }

    /// Removes our rules from others' chains, also those of an earlier run. Gives how many, and each
    /// failure; other chains are closed all the same.
    fn close_host(&mut self) -> (usize, Vec<NftError>) {
        let (mut removed, mut errors) = (0, Vec::new());
        let found = self.foreign().unwrap_or_else(|error| {
            errors.push(error);
            vec![]
        });
        for (batch, count) in found.iter().map(Foreign::close) {
            match self.nf.commit(batch) {
                Ok(()) => removed += count,
                Err(error) => errors.push(error),
            }
        }
        (removed, errors)
    }

    /// Opens the host's firewall, if so configured, where it is not open yet.
    fn open_host(&mut self) -> Vec<Note> {
        if self.policy.host_firewall != HostFirewall::Open || !self.policy.has_uplinks() {
            return vec![];
        }
        let mut outcomes = Vec::new();
        match self.foreign() {
            Ok(chains) => {
                for chain in chains.iter().filter(|chain| !chain.is_open()) {
                    outcomes.push((chain.name(), self.nf.commit(chain.open())));
                }
            }
            Err(error) => outcomes.push(("the host's firewall".to_owned(), Err(error))),
        }
        let note = |(name, outcome)| match outcome {
            Ok(()) => Some(Note::Opened(name)),
            Err(_) if self.refused.contains(&name) => None,
            Err(error) => {
                self.refused.push(name.clone());
                Some(Note::NotOpened(name, error))
            }
        };
        outcomes.into_iter().filter_map(note).collect()
    }
}

/// Those of our tables that are there, whoever made them.
fn own_tables(nf: &mut Netfilter) -> Result<Vec<TableInfo>, NftError> {
    let ours = wsnic_rules::tables();
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
