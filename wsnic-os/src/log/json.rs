//! An event as one JSON object: `{"time":…,"level":…,"program":…,"message":…}` and its fields.
//!
//! Written by hand, for the helper's sake, which needs no JSON otherwise.

use std::fmt::{self, Write as _};
use std::time::Duration;
use tracing::Event;
use tracing::field::{Field, Visit};
use wsnic_proto::time::rfc3339;

/// The object, without a line feed.
pub fn object(program: &str, since_1970: Duration, event: &Event<'_>) -> String {
    let mut object = Object::new();
    object.text("time", &rfc3339(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)));
    object.text("level", event.metadata().level().as_str());
    object.text("program", program);
    event.record(&mut object);
    object.0.push('}');
    object.0
}

struct Object(String);

impl Object {
    fn new() -> Object {
        Object("{".to_owned())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.quoted(name);
        self.0.push(':');
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.quoted(text);
    }

    fn bare(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        // Writing to a string does not fail.
        let _ = write!(self.0, "{value}");
    }

    /// RFC 8259 §7.
    fn quoted(&mut self, text: &str) {
        self.0.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                // U+2028 and U+2029 end lines for some readers, U+007F to U+009F steer terminals.
                letter if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') => {
                    // As above.
                    let _ = write!(self.0, "\\u{:04x}", u32::from(letter));
                }
                letter => self.0.push(letter),
            }
        }
        self.0.push('"');
    }
}

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field.name(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_has_in_it_stays_in_its_string() {
        let mut object = Object::new();
        object.text("a", "x\"y\\z\n\u{1b}[0m\u{85}\u{2028}é");
        object.bare("n", 7);
        assert_eq!(object.0, r#"{"a":"x\"y\\z\n\u001b[0m\u0085\u2028é","n":7"#);
    }
}
