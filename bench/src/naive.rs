//! The relay that one writes first: tokio-tungstenite, one message and one flush for each frame,
//! a plain TAP on the bridge.

use crate::tap;
use futures_util::{SinkExt, StreamExt};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// Bytes of the longest frame.
const LONGEST: usize = 1 << 16;

/// Serves for ever on a listener.
pub fn serve(listener: std::net::TcpListener, attach: impl Fn(&str)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let listener = TcpListener::from_std(listener).expect("a listener");
        for number in 0.. {
            let (stream, _) = listener.accept().await.expect("a client");
            let name = format!("wstap{number}");
            let tap = tap::create(&name, false).expect("a TAP can be made");
            attach(&name);
            tokio::spawn(relay(stream, tap::register(tap)));
        }
    });
}

async fn relay(stream: TcpStream, tap: AsyncFd<File>) {
    stream.set_nodelay(true).expect("a TCP socket");
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut sink, mut source) = socket.split();
    let tap = Arc::new(tap);
    let reader = Arc::clone(&tap);
    let to_guest = tokio::spawn(async move {
        let mut frame = vec![0; LONGEST];
        loop {
            let Ok(mut ready) = reader.readable().await else { return };
            match ready.try_io(|tap| tap.get_ref().read(&mut frame)) {
                Ok(Ok(len)) => {
                    let message = Message::Binary(frame[..len].to_vec().into());
                    if sink.send(message).await.is_err() {
                        return;
                    }
                }
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    });
    while let Some(Ok(message)) = source.next().await {
        if let Message::Binary(frame) = message {
            let _ = tap.get_ref().write(&frame);
        }
    }
    to_guest.abort();
}
