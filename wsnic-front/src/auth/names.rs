//! How many clients are in by one name and kind of proof.
//!
//! Pure. Never larger than the number of sessions: who has left is forgotten.

use super::{Identity, Method};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

type Key = (Method, String);

/// Clients by name; shared by all sessions.
#[derive(Debug, Default)]
pub struct Names(RefCell<HashMap<Key, u32>>);

/// As many clients of this name are in as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this name has as many clients as it may have (max_clients of its token)")]
pub struct TooManyOfName;

/// Somebody who is in, until it is dropped.
#[derive(Debug)]
pub struct NameEntered {
    names: Rc<Names>,
    key: Option<Key>,
}

impl Names {
    /// Lets somebody in and counts him; who has no name is not counted.
    ///
    /// # Errors
    /// `max_clients` of the identity are in.
    pub fn enters(self: &Rc<Names>, identity: &Identity) -> Result<NameEntered, TooManyOfName> {
        let key = identity.name.clone().map(|name| (identity.method, name));
        if let Some(key) = &key {
            let mut names = self.0.borrow_mut();
            let count = names.get(key).copied().unwrap_or(0);
            if identity.max_clients > 0 && count >= identity.max_clients {
                return Err(TooManyOfName);
            }
            names.insert(key.clone(), count.saturating_add(1));
        }
        Ok(NameEntered { names: Rc::clone(self), key })
    }

    /// Clients that are in by this name.
    pub fn count(&self, method: Method, name: &str) -> u32 {
        self.0.borrow().get(&(method, name.to_owned())).copied().unwrap_or(0)
    }
}

impl Drop for NameEntered {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut names = self.names.0.borrow_mut();
        match names.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(names.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, method: Method, max_clients: u32) -> Identity {
        Identity { max_clients, ..Identity::plain(Some(name.to_owned()), method) }
    }

    #[test]
    fn as_many_come_in_as_may_and_who_leaves_makes_room() {
        let names = Rc::new(Names::default());
        let alice = identity("alice", Method::Token, 2);
        let first = names.enters(&alice).unwrap();
        let _second = names.enters(&alice).unwrap();
        assert_eq!(names.enters(&alice).unwrap_err(), TooManyOfName);
        let _other = names.enters(&identity("alice", Method::Signed, 1)).unwrap();
        drop(first);
        let _third = names.enters(&alice).unwrap();
        assert_eq!(names.count(Method::Token, "alice"), 2);
    }

    #[test]
    fn who_has_left_is_forgotten_and_no_limit_is_none() {
        let names = Rc::new(Names::default());
        let many: Vec<_> =
            (0..100).map(|_| names.enters(&identity("x", Method::Password, 0))).collect();
        assert!(many.iter().all(Result::is_ok));
        let nobody = names.enters(&Identity::plain(None, Method::Anyone)).unwrap();
        drop((many, nobody));
        assert!(names.0.borrow().is_empty());
    }
}
