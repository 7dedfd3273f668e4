//! What wsnic's processes agree on: the helper protocol, what a frame is, addresses, and the options.
//!
//! Runs in every process of wsnic. Does no I/O, knows no clock, thread or environment, and panics
//! on no input: decision functions take bytes and facts as arguments and return a value.
#![forbid(unsafe_code)]

pub mod address;
pub mod bindings;
#[cfg(feature = "cli")]
pub mod cli;
pub mod codec;
pub mod conf;
pub mod dispatch;
pub mod frame;
pub mod message;
pub mod notes;
pub mod offload;
pub mod options;
pub mod ports;
pub mod rooms;
pub mod settings;
pub mod slots;
pub mod time;
pub mod token_file;

pub use address::{Cidr, CidrError, IpBlock, IpBlockError, MacAddr, Plan, PlanError};
pub use conf::{ConfError, ConfFile, Warning};
pub use frame::{Frame, FrameError};
pub use message::{ErrorCode, Generation, PortId, Reply, Request, RequestId, RevokeReason};
pub use settings::{Facts, Settings, resolve};
