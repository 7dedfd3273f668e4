//! wsnic, the command that people type.
//!
//! `wsnic run` starts and supervises helper and front-end where there is no systemd; `wsnic check`
//! says whether they would start here; `wsnic token` makes tokens for those who may come in. Without
//! a word it runs, as command lines of earlier versions expect.
#![forbid(unsafe_code)]

mod admin;
mod capture;
mod cert;
mod check;
mod child;
mod host_firewall;
mod operator;
mod reload;
mod rows;
mod run;
mod terminal;
mod token;
mod top;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    words::dispatch(std::env::args_os().collect())
}
