//! A thread that judges passwords, because bcrypt takes 50 ms and more, and it is meant to.
//!
//! Started before the sandbox is sealed, like `fd_closer`; there is one, so that passwords take one
//! core at most. Its queue is bounded: whoever comes when it is full is refused. A password that
//! was right is remembered for ten minutes, as a keyed hash together with what it was judged by, so
//! that a guest that reconnects every 10 s does not wait behind those who guess, and a password that
//! was changed is forgotten with the reload.

use super::basic::Question;
use super::{Identity, Why};
use ring::hmac;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use wsnic_os::thread;

/// Questions that wait; at 50 ms each the last one waits for 3 s.
const QUEUE: usize = 64;
/// For how long a right password is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many are.
const MAX_REMEMBERED: usize = 4096;

/// Where to ask about passwords.
pub struct Passwords {
    queue: SyncSender<Asked>,
    key: hmac::Key,
    memory: RefCell<Memory>,
}

/// Without what is remembered.
impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

struct Asked {
    question: Question,
    answer: oneshot::Sender<bool>,
}

impl Passwords {
    /// Starts the thread, which ends when this is dropped.
    ///
    /// # Errors
    /// The system gives no thread or no random bytes.
    pub fn start() -> io::Result<Passwords> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new());
        let key = key.map_err(|_| io::Error::other("no random bytes can be had"))?;
        let (queue, questions) = sync_channel::<Asked>(QUEUE);
        thread::start("passwords", move || {
            for Asked { question, answer } in questions {
                // Whoever has gone meanwhile is not worth 50 ms.
                if !answer.is_closed() {
                    // Who hung up meanwhile hears no answer.
                    let _ = answer.send(judge(&question));
                }
            }
        })?;
        Ok(Passwords { queue, key, memory: RefCell::default() })
    }

    /// Who it is.
    ///
    /// # Errors
    /// [`Why::Password`], or [`Why::Busy`] if too many wait.
    ///
    /// # Cancel safety
    /// A question that nobody waits for any more is not judged.
    pub async fn ask(&self, question: Question) -> Result<Identity, Why> {
        let mark = self.mark(&question);
        if self.memory.borrow_mut().knows(&mark, Instant::now()) {
            return Ok(question.identity());
        }
        let identity = question.identity();
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Asked { question, answer }).map_err(|_| Why::Busy)?;
        // The thread drops no question and ends with this: an error cannot be.
        if !answered.await.map_err(|_| Why::Busy)? {
            return Err(Why::Password);
        }
        self.memory.borrow_mut().remember(mark, Instant::now());
        Ok(identity)
    }

    /// What is remembered of a question: nobody without the key learns anything from it.
    fn mark(&self, question: &Question) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [question.basic.name.as_bytes(), &question.basic.password] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.update(question.hash.as_bytes());
        context.update(&[question.known.into()]);
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }
}

/// As long for a name that there is not.
fn judge(question: &Question) -> bool {
    let fits = bcrypt::verify(&question.basic.password, &question.hash).unwrap_or(false);
    fits & question.known
}

type Mark = [u8; 32];

/// What was right, each with the time until which it is remembered, the oldest first.
#[derive(Default)]
struct Memory {
    until: HashMap<Mark, Instant>,
    order: VecDeque<Mark>,
}

impl Memory {
    fn knows(&mut self, mark: &Mark, now: Instant) -> bool {
        self.until.get(mark).is_some_and(|until| *until > now)
    }

    fn remember(&mut self, mark: Mark, now: Instant) {
        while let Some(oldest) = self.order.front() {
            let is_over = self.until.get(oldest).is_none_or(|until| *until <= now);
            if !is_over && self.order.len() < MAX_REMEMBERED {
                break;
            }
            self.until.remove(oldest);
            self.order.pop_front();
        }
        // Asked twice at the same time: the first one counts.
        if let std::collections::hash_map::Entry::Vacant(entry) = self.until.entry(mark) {
            entry.insert(now + REMEMBERED);
            self.order.push_back(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::basic::Accounts;
    use super::super::shown::Basic;
    use super::super::{Method, Source};
    use super::*;

    /// At the least cost, so that the tests are quick.
    fn accounts(password: &str) -> Accounts {
        let hash = bcrypt::hash_with_salt(password, 4, [3; 16]).unwrap();
        let line = format!("bob:{}\n", hash.format_for_version(bcrypt::Version::TwoY));
        Accounts::new(&Source { path: "f".into(), text: line.into_bytes() }).unwrap()
    }

    fn question(accounts: &Accounts, name: &str, password: &str) -> Question {
        let (name, password) = (name.to_owned(), password.as_bytes().to_vec());
        accounts.question(Basic { name, password })
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn the_right_password_comes_in_and_others_do_not() {
        let passwords = Passwords::start().unwrap();
        let accounts = accounts("right");
        run(async {
            let bob = passwords.ask(question(&accounts, "bob", "right")).await.unwrap();
            assert_eq!((bob.name.as_deref(), bob.method), (Some("bob"), Method::Password));
            for (name, password) in
                [("bob", "wrong"), ("bob", ""), ("Bob", "right"), ("eve", "right")]
            {
                let answer = passwords.ask(question(&accounts, name, password)).await;
                assert_eq!(answer, Err(Why::Password), "{name} {password}");
            }
        });
        assert_eq!(passwords.memory.borrow().until.len(), 1, "only what was right is remembered");
    }

    #[test]
    fn what_was_right_is_remembered_until_the_password_is_changed() {
        let mut passwords = Passwords::start().unwrap();
        let (before, after) = (accounts("right"), accounts("changed"));
        run(async {
            passwords.ask(question(&before, "bob", "right")).await.unwrap();
            // Nobody answers from now on.
            let (queue, _questions) = sync_channel(0);
            passwords.queue = queue;
            assert!(passwords.ask(question(&before, "bob", "right")).await.is_ok());
            assert_eq!(passwords.ask(question(&after, "bob", "right")).await, Err(Why::Busy));
            assert_eq!(passwords.ask(question(&before, "bob", "righ")).await, Err(Why::Busy));
        });
    }

    #[test]
    fn where_the_name_ends_makes_a_difference() {
        let passwords = Passwords::start().unwrap();
        let accounts = accounts("right");
        let one = question(&accounts, "bob", "right");
        let basic = Basic { name: "bobr".to_owned(), password: b"ight".to_vec() };
        let other = Question { basic, ..one.clone() };
        assert_eq!(passwords.mark(&one), passwords.mark(&one.clone()));
        assert_ne!(passwords.mark(&one), passwords.mark(&other));
    }

    #[test]
    fn who_comes_when_the_queue_is_full_is_refused() {
        let mut passwords = Passwords::start().unwrap();
        let (queue, _questions) = sync_channel(1);
        passwords.queue = queue;
        let accounts = accounts("right");
        run(async {
            let mut first = std::pin::pin!(passwords.ask(question(&accounts, "bob", "1")));
            let waits = std::future::poll_fn(|context| {
                std::task::Poll::Ready(first.as_mut().poll(context).is_pending())
            });
            assert!(waits.await);
            assert_eq!(passwords.ask(question(&accounts, "bob", "2")).await, Err(Why::Busy));
        });
    }

    #[test]
    fn memory_forgets_in_time_and_never_grows() {
        let now = Instant::now();
        let mut memory = Memory::default();
        let mark = |number: usize| {
            let mut mark = [0; 32];
            mark[..8].copy_from_slice(&number.to_be_bytes());
            mark
        };
        memory.remember(mark(0), now);
        memory.remember(mark(0), now + Duration::from_secs(1));
        assert!(memory.knows(&mark(0), now + REMEMBERED - Duration::from_secs(1)));
        assert!(!memory.knows(&mark(0), now + REMEMBERED));
        assert!(!memory.knows(&mark(1), now));
        for number in 0..3 * MAX_REMEMBERED {
            memory.remember(mark(number), now);
            assert!(memory.until.len() <= MAX_REMEMBERED);
            assert_eq!(memory.until.len(), memory.order.len());
        }
        assert!(memory.knows(&mark(3 * MAX_REMEMBERED - 1), now) && !memory.knows(&mark(0), now));
        memory.remember(mark(0), now + REMEMBERED);
        assert_eq!(memory.until.len(), 1);
    }
}
