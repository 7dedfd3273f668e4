//! wsnic, the command that people type.
//!
//! `wsnic run` starts and supervises helper and front-end where there is no systemd; `wsnic check`
//! says whether they would start here; `wsnic token` makes tokens for those who may come in. Without
//! a word it runs, as command lines of earlier versions expect.
#![forbid(unsafe_code)]

mod admin;
mod cert;
mod check;
mod child;
mod host_firewall;
mod live;
mod operator;
mod reload;
mod run;
mod token;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    words::dispatch(std::env::args_os().collect())
}
