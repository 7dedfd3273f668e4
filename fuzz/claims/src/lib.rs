//! What holds for every input: one function for each parser or state machine that strangers feed.
//!
//! Each takes bytes and panics if they break a claim. The fuzzers in `fuzz/fuzz_targets` and the
//! tests in `fuzz/claims/tests` call the same functions. The models in here are written from the
//! documents, not from the code that they judge. docs/fuzzing.md lists the claims.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "to panic is what all of these functions are for")]

mod codec;
mod conf;
mod dhcp;
mod dispatch;
mod frame;
mod framing;
mod http_head;
mod leases;
mod offload_cut;
mod offload_join;
#[path = "../../../wsnic-proto/tests/support/packets.rs"]
mod packets;
mod ports;
mod tape;
mod token;
mod websocket;

pub use codec::codec;
pub use conf::conf;
pub use dhcp::dhcp;
pub use dispatch::dispatch;
pub use frame::frame;
pub use framing::framing;
pub use http_head::http_head;
pub use offload_cut::offload_cut;
pub use offload_join::offload_join;
pub use token::token;
pub use websocket::websocket;

/// A claim.
pub type Target = fn(&[u8]);

/// Every target by the name of its fuzzer and its corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("codec", codec),
    ("conf", conf),
    ("dhcp", dhcp),
    ("dispatch", dispatch),
    ("frame", frame),
    ("framing", framing),
    ("http_head", http_head),
    ("offload_cut", offload_cut),
    ("offload_join", offload_join),
    ("token", token),
    ("websocket", websocket),
];
