//! wsnic-front, the front-end: talks to strangers, moves all frames, holds no privilege.

pub mod addresses;
mod admin;
pub mod auth;
mod codel;
mod counters;
pub mod dhcp;
mod dhcp_port;
mod end;
mod fd_closer;
mod helper;
pub mod http;
mod listen;
mod log_limit;
mod namespaces;
mod outbox;
mod page;
mod proxy;
mod rate;
mod sandbox;
mod session;
mod sessions;
mod shuttle;
pub mod startup;
mod stream;
mod tls;
mod turn;
pub mod ws;
