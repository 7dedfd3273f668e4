//! wsnic, the command that people type: its parts, and [`words::tree`] for those who describe it.
#![forbid(unsafe_code)]

mod admin;
mod capture;
mod cert;
mod check;
mod child;
mod dnsmasq;
mod host_firewall;
mod live;
mod operator;
mod reload;
mod rows;
mod run;
mod terminal;
mod token;
mod top;
pub mod words;
