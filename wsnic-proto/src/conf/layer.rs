//! The values of one origin: file, environment or command line.

use super::{ConfError, Origin};
use crate::options::{OptionId, OptionSpec, Switch};
use std::collections::BTreeMap;

/// One value as the operator gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Where.
    pub origin: Origin,
    /// The option as it was written there: a name, a variable or `--long`.
    pub key: String,
    /// The value without white space around it; empty: unset.
    pub value: String,
}

impl Given {
    /// A value; white space around it is dropped.
    pub fn new(origin: Origin, key: &str, value: &str) -> Given {
        Given { origin, key: key.to_owned(), value: value.trim().to_owned() }
    }

    /// The error that says that this value has `problem`, with a `remedy`.
    pub fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> ConfError {
        ConfError::Value {
            given: Box::new(self.clone()),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// Any other word.
    pub fn flag(&self) -> Result<bool, ConfError> {
        match self.value.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" | "t" | "1" => Ok(true),
            "no" | "off" | "false" | "f" | "0" => Ok(false),
            _ => Err(self.error(
                "is neither yes nor no",
                format!("give {}", crate::options::Kind::Flag.allowed()),
            )),
        }
    }
}

/// The values of one origin, at most one for each option.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer(BTreeMap<OptionId, Given>);

impl Layer {
    /// Says nothing.
    pub const fn new() -> Layer {
        Layer(BTreeMap::new())
    }

    /// What this layer says about an option.
    pub fn get(&self, id: OptionId) -> Option<&Given> {
        self.0.get(&id)
    }

    /// Sets an option, or by a `switch` of it one of its values, in place of an earlier value.
    ///
    /// # Errors
    /// A control character other than TAB in the value, or a switch that is neither on nor off.
    pub fn set(
        &mut self,
        spec: &OptionSpec,
        switch: Option<Switch>,
        mut given: Given,
    ) -> Result<(), ConfError> {
        if given.value.chars().any(|letter| letter.is_control() && letter != '\t') {
            let remedy = format!("give {}", spec.kind.allowed());
            return Err(given.error("has a control character", remedy));
        }
        if let Some(switch) = switch.filter(|_| !given.value.is_empty()) {
            let means_it = given.flag()? == switch.answer;
            given.value = if means_it { switch.value.to_owned() } else { String::new() };
        }
        self.0.insert(spec.id, given);
        Ok(())
    }
}
