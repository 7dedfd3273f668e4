//! The little that all of wsnic's programs do with the operating system.
//!
//! [`config`] reads what the program is told, [`inherited`] takes sockets that it was started with,
//! [`janitor`] removes a socket's file at the end,
//! [`start`] does both and opens the log in the right order,
//! [`log`] writes to standard error or the syslog daemon, [`log_limit`] holds back what strangers cause,
//! [`notify`] tells whoever supervises the process that it is
//! ready, [`packet`] moves the helper protocol's packets and the fds that travel with them, [`watch`]
//! lets the runtime wait for an fd, [`privileges`] and [`sandbox`] lock the process in,
//! [`thread`] starts a thread that goes in with it.

pub mod config;
pub mod inherited;
pub mod janitor;
pub mod log;
pub mod log_limit;
pub mod material;
pub mod notify;
pub mod packet;
pub mod parent;
pub mod privileges;
pub mod sandbox;
pub mod start;
pub mod thread;
pub mod unix;
pub mod watch;
