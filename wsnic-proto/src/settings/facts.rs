//! What the caller found out about the machine, and the layers that follow from it.

use crate::conf::{ConfError, Given, Layer, Origin};
use crate::options::{OPTIONS, OptionId};
use std::ffi::OsString;

/// One of these files exists inside a container made by Docker or podman.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
const CERT: &str = "cert/cert.crt";
const KEY: &str = "cert/cert.key";
const CONTAINER_CERT: &str = "/opt/wsnic/cert/cert.crt";
const CONTAINER_KEY: &str = "/opt/wsnic/cert/cert.key";

/// What the resolver must know about the machine; the default is a machine without any of it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `--docker-mode` was given.
    pub docker_mode: bool,
    /// The program runs inside a container.
    pub container: bool,
    /// systemd started this very program as a service.
    pub by_systemd: bool,
    /// A certificate that is there although no option names it.
    pub cert: Option<&'static str>,
    /// A private key that is there although no option names it.
    pub key: Option<&'static str>,
    /// Values of the variables that set options, by name.
    pub environment: Vec<(&'static str, String)>,
}

impl Facts {
    /// Asks the caller's functions: is there such a file, and what is in this variable.
    ///
    /// # Errors
    /// A variable that sets an option is not UTF-8.
    pub fn gather(
        docker_mode: bool,
        is_file: impl Fn(&str) -> bool,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Facts, ConfError> {
        let container = CONTAINER_MARKS.into_iter().any(&is_file);
        let first = |paths: [&'static str; 2]| {
            let known = if container || docker_mode { 2 } else { 1 };
            paths.into_iter().take(known).find(|path| is_file(path))
        };
        let mut facts = Facts {
            docker_mode,
            container,
            by_systemd: false,
            cert: first([CERT, CONTAINER_CERT]),
            key: first([KEY, CONTAINER_KEY]),
            environment: Vec::new(),
        };
        for name in OPTIONS.iter().filter_map(|spec| spec.env) {
            if let Some(value) = variable(name) {
                let value = value.into_string().map_err(|value| ConfError::ForeignText {
                    origin: Origin::Environment,
                    text: format!("{name}={}", value.to_string_lossy()),
                })?;
                facts.environment.push((name, value));
            }
        }
        Ok(facts)
    }

    /// The same, for the process `pid`: systemd names the one that it starts (systemd.exec(5)).
    #[must_use]
    pub fn of_process(mut self, pid: u32, systemd_exec_pid: Option<OsString>) -> Facts {
        let named = systemd_exec_pid.and_then(|text| text.to_str()?.parse().ok());
        self.by_systemd = named == Some(pid);
        self
    }

    /// True if a container's rules apply, found or ordered.
    pub fn in_container(&self) -> bool {
        self.container || self.docker_mode
    }

    /// The value of an option that nobody gives; empty: unset.
    ///
    /// Two earlier versions had images: the one with `--docker-mode` used ports 80 and 443, the one
    /// that looked for a container's marks kept 8086 and 8087. An image with `--docker-mode` stands
    /// in for both.
    pub(super) fn default_of(&self, id: OptionId) -> &'static str {
        match id {
            OptionId::WsServerAddr if self.in_container() => "0.0.0.0",
            OptionId::WsServerPort if self.docker_mode => "80, 8086",
            OptionId::WssServerPort if self.docker_mode => "443, 8087",
            OptionId::Sandbox if self.by_systemd => "require",
            OptionId::WssServerCert => self.cert.unwrap_or_default(),
            OptionId::WssServerKey => self.key.unwrap_or_default(),
            _ => id.spec().default,
        }
    }

    /// What the environment says; an empty variable says nothing.
    pub(super) fn layer(&self) -> Result<Layer, ConfError> {
        let mut layer = Layer::default();
        for (name, value) in &self.environment {
            let Some(spec) = OPTIONS.iter().find(|spec| spec.env == Some(*name)) else { continue };
            let mut given = Given::new(Origin::Environment, name, value);
            if spec.id == OptionId::DhcpService && !given.value.is_empty() {
                // WSNIC_ENABLE_DHCP asks yes or no. Yes is its default in containers and must not
                // take the file's choice of a service away.
                let enabled = given.flag()?;
                given.value = if enabled { String::new() } else { "disabled".to_owned() };
            }
            if !given.value.is_empty() {
                layer.set(spec, None, given)?;
            }
        }
        Ok(layer)
    }
}
