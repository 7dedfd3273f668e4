//! What is measured, in the order of the table.

pub mod arrival;
pub mod door;
pub mod fairness;
pub mod idle;
pub mod latency;
pub mod locks;
pub mod sandbox;
pub mod sessions;
pub mod small;
pub mod start;
pub mod storm;
pub mod tcp;
pub mod tls;
