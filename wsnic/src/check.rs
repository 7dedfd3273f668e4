//! `wsnic check`: the file, then the machine; one line per finding, and what to do.

use crate::child::{self, Program, Store};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use wsnic_os::config::Loaded;
use wsnic_os::log::say;
use wsnic_proto::settings::DhcpService;

/// Prints every finding; the status is 0 when wsnic would start.
pub fn check(loaded: &Loaded) -> ExitCode {
    let settings = &loaded.settings;
    match &loaded.file {
        Some(file) => say(format_args!("ok       {} is understood", file.display())),
        None => say(format_args!("ok       no configuration file, the defaults apply")),
    }
    for warning in &loaded.warnings {
        say(format_args!("warning  {warning}"));
    }
    let mut fit = true;
    if settings.dhcp.service == DhcpService::Dnsmasq {
        fit = false;
        say(format_args!(
            "problem  dhcp_service=dnsmasq is not supported by this version\n         use dhcp_service=builtin, which needs nothing installed"
        ));
    }
    for ip in &settings.server.addresses {
        let address = SocketAddr::new(*ip, settings.server.ws_port);
        match TcpListener::bind(address) {
            Ok(_) => say(format_args!("ok       {address} is free to listen on")),
            Err(error) => {
                fit = false;
                say(format_args!("problem  {address} cannot be listened on ({error})"));
                say(format_args!(
                    "         stop what uses it, or choose another with ws_server_addr and ws_server_port"
                ));
            }
        }
    }
    match machine(loaded) {
        Ok(true) if fit => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("problem  the machine cannot be checked ({error})"));
            ExitCode::FAILURE
        }
    }
}

/// Lets the helper look at the machine: it knows what it needs. True if that is there.
fn machine(loaded: &Loaded) -> std::io::Result<bool> {
    let helper = Program::find("wsnic-priv", loaded.settings.to_conf(), loaded.verbosity)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let status = helper.arg("--check").spawn(&Store::new())?.0.wait().await;
        match status {
            Ok(status) if status.code().is_some_and(|code| code <= 1) => Ok(status.success()),
            other => Err(std::io::Error::other(child::describe(other))),
        }
    })
}
