//! What was found, as lines for a person or as one JSON object.

use serde_json::{Map, Value, json};
use std::time::Duration;
use wsnic_os::log::say;

/// What does not work, and what somebody can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What was seen.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Trouble {
    /// Two sentences.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), remedy: remedy.into() }
    }
}

/// How a step went.
pub enum Outcome {
    /// It works.
    Good {
        /// How long it took.
        time: Duration,
        /// What was found.
        what: String,
        /// The same for programs.
        details: Value,
    },
    /// There was nothing to test, which is no fault.
    Skipped(String),
    /// It does not work.
    Bad(Trouble),
}

/// All steps so far.
pub struct Report {
    url: String,
    is_json: bool,
    steps: Vec<Value>,
    is_well: bool,
}

impl Report {
    /// No steps; lines are printed as steps are added, unless `is_json`. `url` is [`without_secrets`].
    pub fn new(url: String, is_json: bool) -> Report {
        if !is_json {
            say(format_args!("guest    joins {url}"));
        }
        Report { url, is_json, steps: Vec::new(), is_well: true }
    }

    /// One more step; true unless it failed.
    pub fn add(&mut self, step: &'static str, outcome: Outcome) -> bool {
        let is_bad = matches!(outcome, Outcome::Bad(_));
        self.is_well &= !is_bad;
        if !self.is_json {
            say(line(step, &outcome));
        }
        let mut value = Map::new();
        value.insert("step".to_owned(), step.into());
        let mut set = |name: &str, field: Value| value.insert(name.to_owned(), field);
        match outcome {
            Outcome::Good { time, what, details } => {
                set("state", "ok".into());
                set("milliseconds", milliseconds(time).into());
                set("what", what.into());
                for (name, field) in details.as_object().into_iter().flatten() {
                    set(name, field.clone());
                }
            }
            Outcome::Skipped(why) => {
                set("state", "skipped".into());
                set("what", why.into());
            }
            Outcome::Bad(trouble) => {
                set("state", "problem".into());
                set("what", trouble.what.into());
                set("remedy", trouble.remedy.into());
            }
        }
        self.steps.push(Value::Object(value));
        !is_bad
    }

    /// Whether nothing failed.
    pub fn is_well(&self) -> bool {
        self.is_well
    }

    /// The last line for a person.
    pub fn verdict(&self) -> &'static str {
        if self.is_well { "all is well" } else { "something does not work: see above" }
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({ "url": self.url, "ok": self.is_well, "steps": self.steps })
    }
}

/// A URL without token, password and the name of a room: what is said of it is sent around. Of the path
/// stays what is a name of `networks`; every other part may be a token, of a URL that is mistyped
/// everything may be a password that is not plainly host and port.
pub fn without_secrets(url: &str, networks: &[String]) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let (place, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let place = place.rsplit('@').next().unwrap_or_default();
    // Behind the last bracket, which an IPv6 address ends with.
    let end = place.rsplit(']').next().unwrap_or_default();
    let has_port =
        end.split_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let place = if has_port && !path.contains('@') { place } else { "…" };
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let path = match (parts.next(), parts.next()) {
        (None, _) => "",
        (Some(first), more) if networks.iter().any(|name| name == first) => match more {
            None => first,
            Some(_) => &format!("{first}/…"),
        },
        (Some(_), _) => "…",
    };
    format!("{scheme}{place}/{path}")
}

fn line(step: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Good { time, what, .. } => {
            format!("ok       {step:<10} {:>9}  {what}", format!("{} ms", milliseconds(*time)))
        }
        Outcome::Skipped(why) => format!("skipped  {step:<10} {:>9}  {why}", "-"),
        Outcome::Bad(Trouble { what, remedy }) => {
            format!("problem  {step:<10} {:>9}  {what}\n         {remedy}", "-")
        }
    }
}

/// With one digit behind the point.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_only_host_port_and_the_name_of_a_network_are_shown() {
        let networks = ["default", "lan"].map(str::to_owned);
        for (given, shown) in [
            ("ws://127.0.0.1:8086/lan?token=abc@x", "ws://127.0.0.1:8086/lan"),
            ("ws://127.0.0.1:8086?token=abc", "ws://127.0.0.1:8086/"),
            ("wss://alice:secret@host/", "wss://host/"),
            ("ws://[::1]:8086/", "ws://[::1]:8086/"),
            ("ws://a:b@[::1]/lan/", "ws://[::1]/lan"),
            ("ws://host", "ws://host/"),
            ("wss://host/lan/secret", "wss://host/lan/…"),
            ("wss://host//lan//secret/", "wss://host/lan/…"),
            ("wss://host/TOKEN", "wss://host/…"),
            ("wss://host/TOKEN/lan", "wss://host/…"),
            ("wss://host/Lan", "wss://host/…"),
        ] {
            assert_eq!(without_secrets(given, &networks), shown);
        }
        assert_eq!(without_secrets("wss://host/lan", &[]), "wss://host/…", "nobody knows it");
    }

    #[test]
    fn of_a_mistyped_url_what_may_be_a_password_is_not_shown() {
        for given in [
            "http://alice:secret@host/?token=secret",
            "ws:/alice:secret@host/",
            "alice:secret@host/secret",
            "ws://alice:secret/1@host/",
            "ws://alice:1/secret@host/",
            "ws://alice:secret?@host/",
            "ws://alice:secret#1@host/",
            "wss//host/?token=secret",
            "wss:/host/secret",
        ] {
            let shown = without_secrets(given, &[]);
            assert!(!shown.contains("secret"), "{given}: {shown}");
        }
    }

    #[test]
    fn a_skipped_step_is_well_and_a_bad_one_is_not() {
        let mut report = Report::new("ws://host/".to_owned(), true);
        assert!(report.add("names", Outcome::Skipped("no Internet".to_owned())));
        assert!(report.is_well());
        assert!(!report.add("ping", Outcome::Bad(Trouble::new("no answer", "look"))));
        let value = report.to_json();
        assert_eq!(value["ok"], false);
        assert_eq!(
            value["steps"][1],
            json!({"step": "ping", "state": "problem", "what": "no answer", "remedy": "look"})
        );
    }
}
