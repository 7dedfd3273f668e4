//! wsnic.conf: text to settings and back.

use crate::tape::Tape;
use wsnic_proto::conf::{Layer, Warning};
use wsnic_proto::{ConfError, ConfFile, Facts, Settings, resolve};

/// Settings survive their own text; every error and warning names the file and a line of it, and
/// the option that stands there; line ends and comments mean nothing.
///
/// Input: a byte for the machine that the file is read on, then the file.
pub fn conf(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let machine = tape.byte();
    let content = tape.rest();
    let facts = Facts {
        docker_mode: machine & 1 != 0,
        container: machine & 2 != 0,
        cert: (machine & 4 != 0).then_some("cert/cert.crt"),
        key: (machine & 8 != 0).then_some("cert/cert.key"),
        by_systemd: machine & 16 != 0,
        environment: Vec::new(),
    };
    let outcome = settings(content, &facts);
    match &outcome {
        Ok((settings, warnings)) => {
            for warning in warnings {
                check_place(content, &warning.to_string(), None);
            }
            let text = settings.to_conf();
            let (again, _) = self::settings(text.as_bytes(), &Facts::default()).expect(&text);
            assert_eq!(again, *settings, "{text}");
            assert_eq!(again.to_conf(), text);
        }
        Err(error) => {
            let key = match error {
                ConfError::Value { given, .. } => Some(given.key.as_str()),
                _ => None,
            };
            check_place(content, &error.to_string(), key);
        }
    }

    let joined = content.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
    let commented = [content, b"\n# comment\r\n ; comment"].concat();
    for same in [joined, commented] {
        let again = settings(&same, &facts);
        match (&outcome, again) {
            (Ok(outcome), Ok(again)) => assert_eq!(*outcome, again),
            (Err(error), Err(again)) => assert_eq!(error.to_string(), again.to_string()),
            (outcome, again) => panic!("{outcome:?} became {again:?}"),
        }
    }
}

/// The file as the operator names it.
const NAME: &str = "etc/my wsnic.conf";

fn settings(content: &[u8], facts: &Facts) -> Result<(Settings, Vec<Warning>), ConfError> {
    let file = ConfFile::parse(NAME, content)?;
    resolve(&file, &Layer::new(), facts)
}

/// `message` begins with file and line, and that line begins with `key`.
fn check_place(content: &[u8], message: &str, key: Option<&str>) {
    let rest = message.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(':'));
    let number = rest.and_then(|rest| rest.split_once(": ")).map(|(number, _)| number);
    let number: usize = number.and_then(|number| number.parse().ok()).unwrap_or_else(|| {
        panic!("no file and line: {message}");
    });
    let line = content.split(|byte| *byte == b'\n').nth(number.wrapping_sub(1));
    let line = String::from_utf8_lossy(line.unwrap_or_else(|| panic!("no such line: {message}")));
    let line = if number == 1 { line.strip_prefix('\u{feff}').unwrap_or(&line) } else { &line };
    let line = line.trim();
    assert!(!line.is_empty(), "an empty line is at fault: {message}");
    assert!(key.is_none_or(|key| line.starts_with(key)), "{line:?} is not what it says: {message}");
    assert!(!message.contains(char::is_control), "control characters reach the terminal");
    let unseen = ['\u{200b}', '\u{200e}', '\u{202e}', '\u{2066}', '\u{feff}'];
    assert!(!message.contains(unseen), "the operator does not see what is wrong: {message:?}");
}
