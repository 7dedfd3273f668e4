//! Names and passwords of an htpasswd file: which hash a question is about.
//!
//! Pure, and without any bcrypt, which takes long: that is [`super::passwords`].

use super::shown::{self, Basic};
use super::{Identity, Method, Source};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::str::FromStr;
use std::sync::Arc;
use wsnic_proto::conf::Origin;

/// What a password may cost: each step doubles it, 14 takes about a second.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;
/// Bytes of the longest name (as in htpasswd).
const MAX_NAME: usize = 255;
/// What a name that there is not is judged by in an empty file: cost 10, of nothing.
const NOBODY: &str = "$2y$10$abcdefghijklmnopqrstuuW6kW4DEpNyZ5lSRNIVwBHkgKzBDwSLe";

/// Names and hashes.
pub struct Accounts {
    hashes: Vec<Arc<str>>,
    names: HashMap<String, usize>,
    /// Chooses whose cost a name has that there is not: always the same, and nobody knows whose.
    dice: RandomState,
}

/// Without both.
impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

/// What is wrong with a file of passwords. The operator is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {fault}")]
pub struct AccountsError {
    /// File and line.
    pub origin: Origin,
    /// What about the line, and what to do.
    pub fault: AccountFault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountFault {
    /// No name.
    #[error(
        "a line is a name of at most {MAX_NAME} printable bytes, a colon and a hash, as `htpasswd -B FILE NAME` writes it"
    )]
    Line,
    /// Another kind of hash.
    #[error("only bcrypt ($2y$) is read: set this password again with `htpasswd -B FILE NAME`")]
    NotBcrypt,
    /// It would hold up all others.
    #[error("cost {0} takes too long, at most {max} is read: set this password again with `htpasswd -B -C 10 FILE NAME`", max = COSTS.end())]
    Cost(u32),
    /// A name again.
    #[error("line {0} has the same name: remove one")]
    SameName(usize),
}

/// A name and a password that somebody shows, and what they are to be judged by.
#[derive(Clone)]
pub struct Question {
    pub(super) basic: Basic,
    pub(super) hash: Arc<str>,
    /// False: whatever bcrypt says, the answer is no.
    pub(super) known: bool,
}

/// Says nothing, not even whether the name is known.
impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").finish_non_exhaustive()
    }
}

impl Question {
    /// Who it is if the answer is yes.
    pub(super) fn identity(&self) -> Identity {
        Identity::plain(Some(shown::printable(&self.basic.name)), Method::Password)
    }
}

impl Accounts {
    /// Those of a file, one a line as htpasswd writes it; `#` begins a comment line.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn new(source: &Source) -> Result<Accounts, AccountsError> {
        let mut hashes = Vec::new();
        let (mut names, mut lines) = (HashMap::new(), Vec::new());
        for (index, line) in source.text.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let name = source.path.to_string_lossy().into_owned();
            let origin = Origin::File { name, line: number };
            let error = |fault| AccountsError { origin: origin.clone(), fault };
            let line = std::str::from_utf8(line).map_err(|_| error(AccountFault::Line))?;
            let line = line.trim_start_matches('\u{feff}').trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = account(line).map_err(error)?;
            if let Some(first) = names.insert(name.to_owned(), hashes.len()) {
                return Err(error(AccountFault::SameName(lines[first])));
            }
            hashes.push(Arc::from(hash));
            lines.push(number);
        }
        Ok(Accounts { hashes, names, dice: RandomState::new() })
    }

    /// What is to be judged. A name that there is not costs what one costs that there is.
    pub fn question(&self, basic: Basic) -> Question {
        // Both are done for every name.
        let known = self.names.get(&basic.name).copied();
        let chosen = self.dice.hash_one(&basic.name) % self.hashes.len().max(1) as u64;
        let index = known.unwrap_or(usize::try_from(chosen).unwrap_or(0));
        let hash = self.hashes.get(index).cloned().unwrap_or_else(|| Arc::from(NOBODY));
        Question { basic, hash, known: known.is_some() }
    }
}

/// Name and hash of a line.
fn account(line: &str) -> Result<(&str, &str), AccountFault> {
    let (name, rest) = line.split_once(':').ok_or(AccountFault::Line)?;
    let good = (1..=MAX_NAME).contains(&name.len()) && name.chars().all(shown::is_printable);
    if !good {
        return Err(AccountFault::Line);
    }
    // Some programs write more fields behind it, which mean nothing.
    let hash = rest.split(':').next().unwrap_or_default().trim_end();
    // $2x$ is what a faulty implementation wrote.
    if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
        return Err(AccountFault::NotBcrypt);
    }
    let parts = bcrypt::HashParts::from_str(hash).map_err(|_| AccountFault::NotBcrypt)?;
    match parts.get_cost() {
        cost if cost > *COSTS.end() => Err(AccountFault::Cost(cost)),
        cost if cost < *COSTS.start() => Err(AccountFault::NotBcrypt),
        _ => Ok((name, hash)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "$2y$05$LhayLxezLhK1LhWvKxCyLOj0j1u.Kj0jZ0pEmm134uzrQlFvQJLF6";

    fn accounts(text: &str) -> Result<Accounts, AccountsError> {
        Accounts::new(&Source { path: "htpasswd".into(), text: text.as_bytes().to_vec() })
    }

    fn fault(text: &str) -> AccountFault {
        accounts(text).unwrap_err().fault
    }

    fn question(accounts: &Accounts, name: &str) -> Question {
        accounts.question(Basic { name: name.to_owned(), password: b"x".to_vec() })
    }

    #[test]
    fn lines_of_htpasswd_are_read() {
        let accounts = accounts(&format!("# c\r\nbob:{HASH}\r\n\r\nanna ä:{HASH}:more\n")).unwrap();
        assert!(question(&accounts, "bob").known && question(&accounts, "anna ä").known);
        assert!(!question(&accounts, "Bob").known);
    }

    #[test]
    fn each_fault_is_named_with_what_to_do() {
        assert_eq!(fault("bob"), AccountFault::Line);
        assert_eq!(fault(&format!(":{HASH}")), AccountFault::Line);
        for other in [
            "$apr1$abc$def",
            "{SHA}abc",
            "plain",
            "",
            "$2x$05$LhayLxezLhK1LhWvKxCyLOj0j1u.Kj0jZ0pEmm134uzrQlFvQJLF6",
            "$2y$05$short",
            "$2y$99$LhayLxezLhK1LhWvKxCyLOj0j1u.Kj0jZ0pEmm134uzrQlFvQJLF6é",
        ] {
            assert_eq!(fault(&format!("bob:{other}")), AccountFault::NotBcrypt, "{other}");
        }
        assert_eq!(fault(&format!("bob:{}", HASH.replace("$05$", "$15$"))), AccountFault::Cost(15));
        assert_eq!(fault(&format!("#\nbob:{HASH}\nbob:{HASH}")), AccountFault::SameName(2));
        let error = accounts(&format!("bob:{HASH}\nSECRET:SECRET")).unwrap_err();
        assert!(error.to_string().starts_with("htpasswd:2: "), "{error}");
        assert!(error.to_string().contains("htpasswd -B"));
        assert!(!format!("{error} {error:?}").contains("SECRET"));
    }

    #[test]
    fn a_name_that_there_is_not_costs_what_one_costs_that_there_is() {
        let accounts = accounts(&format!("bob:{HASH}\nanna:{}", HASH.replace("05", "06"))).unwrap();
        let asked: Vec<Question> = (0..64).map(|n| question(&accounts, &format!("n{n}"))).collect();
        assert!(asked.iter().all(|question| !question.known));
        let cheap = asked.iter().filter(|question| question.hash.contains("$05$")).count();
        assert!((1..64).contains(&cheap), "each cost is chosen for some names");
        for question in &asked {
            let again = self::question(&accounts, &question.basic.name);
            assert_eq!(again.hash, question.hash, "and always the same for one name");
        }
        let empty = self::accounts("").unwrap();
        assert!(!question(&empty, "bob").known);
        assert_eq!(bcrypt::HashParts::from_str(NOBODY).unwrap().get_cost(), 10);
    }

    #[test]
    fn nothing_secret_is_in_the_debug_text() {
        let accounts = accounts(&format!("bob:{HASH}")).unwrap();
        let text = format!("{accounts:?} {:?}", question(&accounts, "bob"));
        assert!(
            !text.contains("bob") && !text.contains("$2y$") && !text.contains("true"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Accounts::new(&Source { path: "f".into(), text: bytes });
        }

        #[test]
        fn lines_that_look_right_are_read_without_panic(hash in "[$]2[aby][$][0-9]{2}[$].{40,60}") {
            let _ = accounts(&format!("bob:{hash}"));
        }
    }
}
