//! The thread that deletes TAPs, because the kernel blocks the caller for some 20 ms each time.
//!
//! Whatever has gathered while one batch was being deleted is the next batch.

use crate::link::{Links, port_name};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wsnic_os::thread;
use wsnic_proto::slots::ConnectionId;
use wsnic_proto::{PortId, RequestId};

/// Pause before what the kernel refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A TAP to delete, and whom to answer.
#[derive(Debug, Clone, Copy)]
pub struct Deletion {
    /// The port.
    pub port: PortId,
    /// The request that asked for it; None when its connection is gone.
    pub answer: Option<(ConnectionId, RequestId)>,
}

/// Where deletions go in, and where they come out when they are done.
pub type Closer = (UnboundedSender<Deletion>, UnboundedReceiver<Deletion>);

/// Starts the thread. What is sent to it comes back when it is deleted.
///
/// # Errors
/// The system gives no thread or socket.
pub fn start() -> io::Result<Closer> {
    let (order, orders) = unbounded_channel();
    let (done, deleted) = unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::start("closer", move || runtime.block_on(run(orders, &done)))?;
    Ok((order, deleted))
}

async fn run(mut orders: UnboundedReceiver<Deletion>, done: &UnboundedSender<Deletion>) {
    let links = match Links::connect() {
        Ok(links) => links,
        Err(error) => return tracing::error!(%error, "no netlink socket to delete TAPs with"),
    };
    let mut batch = Vec::new();
    // 0 means that the helper has ended.
    while orders.recv_many(&mut batch, usize::MAX).await > 0 {
        let names = || batch.iter().map(|deletion| port_name(deletion.port));
        while let Err(error) = links.delete_ports(names()).await {
            tracing::error!(%error, ports = batch.len(), "cannot delete TAPs, trying again");
            tokio::time::sleep(RETRY).await;
        }
        for deletion in batch.drain(..) {
            // An error means that the helper has ended.
            let _ = done.send(deletion);
        }
    }
}
