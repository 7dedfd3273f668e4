//! wsnic-front, the front-end: talks to strangers, moves all frames, holds no privilege.

mod dhcp;
mod dhcp_port;
mod fd_closer;
mod helper;
mod http;
mod listen;
mod log_limit;
mod privileges;
mod session;
mod shuttle;
mod startup;
mod ws;

use std::process::ExitCode;

fn main() -> ExitCode {
    match startup::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", wsnic_os::log::chain(&error));
            ExitCode::FAILURE
        }
    }
}
