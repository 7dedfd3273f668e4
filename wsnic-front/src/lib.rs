//! wsnic-front, the front-end: talks to strangers, moves all frames, holds no privilege.

mod codel;
pub mod dhcp;
mod dhcp_port;
mod fd_closer;
mod helper;
pub mod http;
mod listen;
mod log_limit;
mod namespaces;
mod rate;
mod sandbox;
mod session;
mod shuttle;
pub mod startup;
pub mod ws;
