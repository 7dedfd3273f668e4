//! wsnic.conf: text to named values, and what can be wrong with it.
//!
//! Called by whoever read the file; a path is only text here. The values are given a meaning in
//! [`crate::settings::resolve`].

mod error;
mod layer;

pub use error::{ConfError, Origin, Warning};
pub use layer::{Given, Layer};

pub(crate) use error::quoted;

use crate::options;
use crate::settings::NetworkName;

/// Where wsnic.conf is looked for when no file is named, first match wins.
pub const CONF_FILES: [&str; 2] = ["wsnic.conf", "/etc/wsnic/wsnic.conf"];

/// Networks beside the one of the options outside of sections.
pub const MAX_SECTIONS: usize = 63;

/// A wsnic.conf that parsed.
#[derive(Debug, Clone, Default)]
pub struct ConfFile {
    /// What the file says before its first section.
    pub layer: Layer,
    /// Its sections, in order.
    pub sections: Vec<Section>,
    /// What it says in vain.
    pub warnings: Vec<Warning>,
}

/// A `[network NAME]`, and what stands below it.
#[derive(Debug, Clone)]
pub struct Section {
    /// The network's name.
    pub name: NetworkName,
    /// Where the section begins.
    pub origin: Origin,
    /// What it says.
    pub layer: Layer,
}

impl ConfFile {
    /// Parses the content of the file called `name`.
    ///
    /// One `option=value` or `option: value` a line; `#` and `;` start a comment at the beginning of
    /// a line; case does not matter in names; `%` and quotes mean nothing. A byte order mark and
    /// CR LF are tolerated. Unknown options are warnings. `[network NAME]` begins the options of one
    /// more network.
    ///
    /// # Errors
    /// The first line that is not UTF-8, no option, or sets an option again, or sets a yes/no option
    /// of an earlier version to something else; a section that is no network's, has the name of
    /// another, or has an option that no network has of its own.
    pub fn parse(name: &str, content: &[u8]) -> Result<ConfFile, ConfError> {
        let mut file = ConfFile::default();
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let origin = Origin::File { name: name.to_owned(), line: index + 1 };
            match std::str::from_utf8(line) {
                Ok(line) => file.line(origin, line.trim())?,
                Err(_) => {
                    let text = String::from_utf8_lossy(line);
                    return Err(ConfError::NotUtf8 { origin, text: text.trim().to_owned() });
                }
            }
        }
        Ok(file)
    }

    fn line(&mut self, origin: Origin, line: &str) -> Result<(), ConfError> {
        if line.is_empty() || line.starts_with(['#', ';']) {
            return Ok(());
        }
        if line.starts_with('[') {
            return self.section(origin, line);
        }
        let (key, value) = match line.split_once(['=', ':']) {
            Some((key, value)) if !key.trim().is_empty() => (key.trim(), value.trim()),
            _ => return Err(ConfError::Line { origin, text: line.to_owned() }),
        };
        let Some((spec, switch)) = options::find(key) else {
            let meant = options::similar(key)
                .map_or_else(String::new, |known| format!(", did you mean \"{known}\"?"));
            let text = format!("unknown option {} ignored{meant}", quoted(key));
            self.warnings.push(Warning { origin, text });
            return Ok(());
        };
        let layer = match self.sections.last_mut() {
            None => &mut self.layer,
            Some(_) if !spec.id.is_of_network() => {
                return Err(ConfError::NotOfNetwork { origin, key: key.to_owned() });
            }
            Some(section) => &mut section.layer,
        };
        if let Some(first) = layer.get(spec.id) {
            return Err(ConfError::Duplicate {
                origin,
                key: key.to_owned(),
                first: first.origin.clone(),
                first_key: first.key.clone(),
            });
        }
        layer.set(spec, switch, Given::new(origin, key, value))
    }

    fn section(&mut self, origin: Origin, line: &str) -> Result<(), ConfError> {
        let text = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let name =
            text.and_then(|text| match text.split_ascii_whitespace().collect::<Vec<_>>()[..] {
                [kind, name] if kind.eq_ignore_ascii_case("network") => NetworkName::new(name),
                _ => None,
            });
        let Some(name) = name else {
            return Err(ConfError::Section { origin, text: line.to_owned() });
        };
        if name == NetworkName::default() {
            return Err(ConfError::DefaultSection { origin });
        }
        if let Some(first) = self.sections.iter().find(|section| section.name == name) {
            let first = first.origin.clone();
            return Err(ConfError::SameNetwork { origin, name, first });
        }
        if self.sections.len() >= MAX_SECTIONS {
            return Err(ConfError::TooManyNetworks { origin });
        }
        self.sections.push(Section { name, origin, layer: Layer::new() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OptionId;
    use proptest::prelude::*;

    fn parse(text: &str) -> ConfFile {
        ConfFile::parse("wsnic.conf", text.as_bytes()).unwrap()
    }

    fn value(text: &str, id: OptionId) -> Option<String> {
        parse(text).layer.get(id).map(|given| given.value.clone())
    }

    fn error(text: &str) -> String {
        ConfFile::parse("etc/my.conf", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn either_delimiter_works_and_the_first_one_counts() {
        assert_eq!(value("subnet = 10.0.0.0/8", OptionId::Subnet).unwrap(), "10.0.0.0/8");
        assert_eq!(value("subnet: 10.0.0.0/8", OptionId::Subnet).unwrap(), "10.0.0.0/8");
        assert_eq!(value("WS_Address=::1", OptionId::WsServerAddr).unwrap(), "::1");
        assert_eq!(value("ws_server_addr: ::1", OptionId::WsServerAddr).unwrap(), "::1");
        assert_eq!(value("wss_server_cert=a=b:c", OptionId::WssServerCert).unwrap(), "a=b:c");
    }

    #[test]
    fn comments_are_whole_lines_and_percent_signs_and_hashes_are_text() {
        let text = "# a\n  ; b\n\t\nwss_server_cert = %(x)s # ; c\n";
        assert_eq!(value(text, OptionId::WssServerCert).unwrap(), "%(x)s # ; c");
    }

    #[test]
    fn byte_order_mark_and_carriage_returns_are_tolerated() {
        let file =
            ConfFile::parse("f", b"\xef\xbb\xbfws_port=1\r\n\r\n# c\r\nwss_port=2\r\n").unwrap();
        assert_eq!(file.layer.get(OptionId::WsServerPort).unwrap().value, "1");
        assert_eq!(file.layer.get(OptionId::WssServerPort).unwrap().value, "2");
        assert!(file.warnings.is_empty());
    }

    #[test]
    fn an_unknown_option_is_a_warning_with_file_and_line() {
        let file = parse("\ntap_addr=192.168.2.1/24\nws-server-port=1\n");
        let warnings: Vec<String> = file.warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            warnings,
            [
                "wsnic.conf:2: unknown option \"tap_addr\" ignored",
                "wsnic.conf:3: unknown option \"ws-server-port\" ignored, \
                 did you mean \"ws_server_port\"?",
            ]
        );
    }

    #[test]
    fn command_line_options_are_unknown_in_a_file() {
        assert_eq!(parse("verbose=1\ndocker_mode=1\nconfig=x\n").warnings.len(), 3);
    }

    #[test]
    fn a_second_value_is_an_error_that_names_both_lines() {
        assert_eq!(
            error("ws_port=1\n\nWS_PORT=1\n"),
            "etc/my.conf:3: WS_PORT is set already in etc/my.conf:1: remove one of the two lines"
        );
        assert_eq!(
            error("subnet=\nbridge_subnet=10.0.0.0/8"),
            "etc/my.conf:2: bridge_subnet is set already in etc/my.conf:1, where it is called \
             subnet: remove one of the two lines"
        );
        assert!(error("dhcp_service=dnsmasq\ndisable_dhcp=0").starts_with("etc/my.conf:2: "));
    }

    #[test]
    fn a_line_without_delimiter_or_name_is_an_error_that_quotes_it() {
        assert_eq!(
            error("ws_port=1\n   8.8.4.4"),
            "etc/my.conf:2: \"8.8.4.4\" is not a setting: write option=value on one line, or put \
             # before a comment"
        );
        assert!(error("=5").starts_with("etc/my.conf:1: \"=5\" is not a setting: "));
    }

    #[test]
    fn a_section_is_an_error_that_says_what_to_do() {
        assert_eq!(
            error("[main]\nws_port=1"),
            "etc/my.conf:1: \"[main]\" is no section that wsnic knows: write [network NAME], \
             NAME of letters, digits, - and _ in lower case, or remove the line"
        );
        for line in ["[network]", "[network a b]", "[network A]", "[network a", "[net a]"] {
            assert!(error(line).contains("is no section that wsnic knows"), "{line}");
        }
    }

    #[test]
    fn a_section_holds_the_options_of_one_more_network() {
        let file = parse("mtu=1400\n[network lab]\nmtu=900\n\n[Network  b-2]\n#\nisolation=yes");
        assert_eq!(file.layer.get(OptionId::Mtu).unwrap().value, "1400");
        let names: Vec<&str> = file.sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, ["lab", "b-2"]);
        assert_eq!(file.sections[0].layer.get(OptionId::Mtu).unwrap().value, "900");
        assert!(file.sections[1].layer.get(OptionId::Mtu).is_none());
        assert!(file.sections[1].layer.get(OptionId::Isolation).is_some());
    }

    #[test]
    fn a_section_with_the_wrong_name_or_option_is_an_error_that_says_what_to_do() {
        assert_eq!(
            error("[network lab]\n[network lab]"),
            "etc/my.conf:2: network lab has a section already in etc/my.conf:1: put both together, \
             or give this one another name"
        );
        assert_eq!(
            error("[network default]"),
            "etc/my.conf:1: the network default has no section: its options stand before the first \
             section"
        );
        assert_eq!(
            error("[network lab]\nws_server_port=1"),
            "etc/my.conf:2: ws_server_port is no option of a network: put it before the first section"
        );
        let many: String =
            (0..=MAX_SECTIONS).map(|number| format!("[network n{number}]\n")).collect();
        assert!(error(&many).ends_with("there can be 63 sections at most"), "{}", error(&many));
    }

    #[test]
    fn a_line_that_is_not_utf8_is_an_error_with_its_number() {
        let error = ConfFile::parse("f", b"ws_port=1\nuser=\xff\n").unwrap_err().to_string();
        assert_eq!(error, "f:2: \"user=\u{fffd}\" is not UTF-8: save the file in that encoding");
    }

    #[test]
    fn a_value_with_control_characters_is_an_error_that_shows_them() {
        assert_eq!(
            error("user=a\u{1b}[31m"),
            "etc/my.conf:1: user=\"a\\u{1b}[31m\" has a control character: give the name of a \
             user of this machine, such as wsnic"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_shown_escaped() {
        let text = error("ws_port=1\n\u{feff}\n");
        assert!(text.starts_with("etc/my.conf:2: \"\\u{feff}\" is not a setting: "), "{text}");
    }

    #[test]
    fn long_and_odd_texts_are_shown_short_and_escaped() {
        let text = error(&format!("\u{7}{}", "x".repeat(100_000)));
        assert!(text.len() < 300 && text.contains("\"\\u{7}xxx"), "{text}");
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_without_panic(content: Vec<u8>) {
            let _ = ConfFile::parse("f", &content).map_err(|error| error.to_string());
        }

        #[test]
        fn any_text_near_the_syntax_parses_or_fails_without_panic(
            lines in proptest::collection::vec(
                "(ws_port|subnet|disable_dhcp|\\[|#|;|\u{feff})? ?[=:]?\\PC{0,8}\r?", 0..6)
        ) {
            let _ = ConfFile::parse("f", lines.join("\n").as_bytes())
                .map_err(|error| error.to_string());
        }
    }
}
