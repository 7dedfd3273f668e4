//! Whether wsnic works: for whoever wants to send clients here, or to be told when it does not.
//!
//! The helper is asked when somebody wants to know, at most once a second, and by one question at a
//! time: a helper that does not answer is not given more of them.

use crate::helper::{Helper, HelperState};
use crate::networks::Networks;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The helper's answer is good for this long.
const FRESH: Duration = Duration::from_secs(1);
/// A helper that has not answered by then does not.
const LIMIT: Duration = Duration::from_secs(1);

/// What is known.
pub struct Health {
    helper: Rc<Helper>,
    question: Cell<Question>,
    /// Told when a question has been answered.
    answered: Notify,
}

/// To the helper.
#[derive(Debug, Clone, Copy)]
enum Question {
    None,
    Asked(Instant),
    Answered(Instant, HelperState),
}

impl Health {
    /// Nothing is known yet.
    pub fn new(helper: Rc<Helper>) -> Rc<Health> {
        let (question, answered) = (Cell::new(Question::None), Notify::new());
        Rc::new(Health { helper, question, answered })
    }

    /// How the helper is; None if it does not answer within a second.
    ///
    /// # Cancel safety
    /// A question that was asked is still answered, for who asks next.
    pub async fn helper(self: &Rc<Health>) -> Option<HelperState> {
        let now = Instant::now();
        let asked = match self.question.get() {
            Question::Answered(at, state) if now < at + FRESH => return Some(state),
            Question::Asked(at) => at,
            Question::Answered(..) | Question::None => {
                self.ask(now);
                now
            }
        };
        timeout_at(asked + LIMIT, self.answered.notified()).await.ok()?;
        match self.question.get() {
            Question::Answered(_, state) => Some(state),
            Question::Asked(_) | Question::None => None,
        }
    }

    fn ask(self: &Rc<Health>, now: Instant) {
        self.question.set(Question::Asked(now));
        let health = Rc::clone(self);
        tokio::task::spawn_local(async move {
            health.question.set(match health.helper.state().await {
                Ok(state) => Question::Answered(Instant::now(), state),
                Err(_) => Question::None,
            });
            health.answered.notify_waiters();
        });
    }

    /// What does not work, one line each, with what to do about it.
    ///
    /// # Cancel safety
    /// As [`Health::helper`].
    pub async fn problems(self: &Rc<Health>, networks: &Networks) -> Vec<String> {
        let mut problems = Vec::new();
        match self.helper().await {
            None => {
                problems.push("helper: it does not answer, see whether wsnic-priv runs".to_owned())
            }
            Some(HelperState { broken, silent, .. }) => {
                if broken > 0 {
                    problems.push(format!(
                        "network: {broken} bridge missing or down, see the helper's log"
                    ));
                }
                if silent > 0 {
                    problems.push(format!(
                        "dhcp: dnsmasq does not serve {silent} of the networks, see the log of wsnic dnsmasq"
                    ));
                }
            }
        }
        for network in networks.iter() {
            let (name, found) = (&network.options.name, network.dhcp_problems());
            problems.extend(found.iter().map(|problem| format!("dhcp: network {name}: {problem}")));
        }
        problems
    }
}
