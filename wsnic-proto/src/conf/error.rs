//! Where a value comes from and what can be wrong with it: every text says where, what, and what to do.

use super::{Given, MAX_SECTIONS};
use crate::settings::NetworkName;
use std::fmt::{self, Write as _};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// A line of a file.
    File {
        /// The file as the operator named it.
        name: String,
        /// Counted from 1.
        line: usize,
    },
    /// The environment of a container.
    Environment,
    /// The command line.
    CommandLine,
}

impl Origin {
    /// True for the same file, or both of the environment, the command line or the defaults.
    pub fn same_place(&self, other: &Origin) -> bool {
        match (self, other) {
            (Origin::File { name, .. }, Origin::File { name: other, .. }) => name == other,
            _ => self == other,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line } => write!(f, "{}:{line}", escaped(name)),
            Origin::Environment => f.write_str("environment"),
            Origin::CommandLine => f.write_str("command line"),
        }
    }
}

/// Something that was said in vain or is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where it was said.
    pub origin: Origin,
    /// What about it and what to do.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Why there are no settings. The operator is at fault in every case and is told what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// A line of the file is not UTF-8.
    #[error("{origin}: {} is not UTF-8: save the file in that encoding", quoted(.text))]
    NotUtf8 {
        /// The line.
        origin: Origin,
        /// Its text, with replacement characters.
        text: String,
    },
    /// An argument or variable is not UTF-8.
    #[error("{origin}: {} is not UTF-8: use only file names and values in that encoding", quoted(.text))]
    ForeignText {
        /// Where it was given.
        origin: Origin,
        /// Its text, with replacement characters.
        text: String,
    },
    /// A line is neither setting nor comment.
    #[error(
        "{origin}: {} is not a setting: write option=value on one line, or put # before a comment",
        quoted(.text)
    )]
    Line {
        /// The line.
        origin: Origin,
        /// Its text.
        text: String,
    },
    /// A `[section]` of no network.
    #[error(
        "{origin}: {} is no section that wsnic knows: write [network NAME], NAME of letters, digits, \
         - and _ in lower case, or remove the line",
        quoted(.text)
    )]
    Section {
        /// The line.
        origin: Origin,
        /// Its text.
        text: String,
    },
    /// A section of the network that needs none.
    #[error(
        "{origin}: the network default has no section: its options stand before the first section"
    )]
    DefaultSection {
        /// The line.
        origin: Origin,
    },
    /// Two sections have one name.
    #[error(
        "{origin}: network {name} has a section already in {first}: put both together, or give this \
         one another name"
    )]
    SameNetwork {
        /// The second section.
        origin: Origin,
        /// The name.
        name: NetworkName,
        /// The first section.
        first: Origin,
    },
    /// More networks than there can be.
    #[error("{origin}: there can be {MAX_SECTIONS} sections at most")]
    TooManyNetworks {
        /// The section that is one too many.
        origin: Origin,
    },
    /// An option in a section that belongs to the whole program.
    #[error("{origin}: {key} is no option of a network: put it before the first section")]
    NotOfNetwork {
        /// The line.
        origin: Origin,
        /// The option's name there.
        key: String,
    },
    /// A network that cannot be made as its section says.
    #[error("{origin}: network {name} {problem}: {remedy}")]
    Network {
        /// Its section.
        origin: Origin,
        /// Its name.
        name: NetworkName,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// An option has two values.
    #[error(
        "{origin}: {key} is set already in {first}{}: remove one of the two lines",
        formerly(.key, .first_key)
    )]
    Duplicate {
        /// The second line.
        origin: Origin,
        /// The option's name there.
        key: String,
        /// The first line.
        first: Origin,
        /// The option's name there.
        first_key: String,
    },
    /// A value is none of those allowed.
    #[error("{}: {}={} {problem}: {remedy}", .given.origin, .given.key, quoted(&.given.value))]
    Value {
        /// The value, where and under which name it was given.
        given: Box<Given>,
        /// What is wrong.
        problem: String,
        /// What to give instead.
        remedy: String,
    },
}

fn formerly(key: &str, first_key: &str) -> String {
    if key.eq_ignore_ascii_case(first_key) {
        String::new()
    } else {
        format!(", where it is called {first_key}")
    }
}

/// Foreign text for a terminal or log: in quotes, what is not seen escaped, cut when it is long.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// White space without width, marks that turn the direction of text, and the byte order mark.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn escaped(text: &str) -> String {
    // Enough for every sensible value; a log line stays readable.
    const LONGEST: usize = 120;
    let mut shown = String::new();
    for (index, letter) in text.chars().enumerate() {
        if index == LONGEST {
            shown.push('…');
            break;
        }
        if !letter.is_control() && !is_invisible(letter) {
            shown.push(letter);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(shown, "{}", letter.escape_unicode());
        }
    }
    shown
}
