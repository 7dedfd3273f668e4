//! What a session's shuttle has to say to whoever keeps the sessions: now and then, never of a frame.

use crate::guest::Pair;
use crate::helper::OpenError;
use std::cell::Cell;
use tokio::sync::Notify;
use wsnic_proto::MacAddr;

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// The client has sent a text message, for the first time.
    Text,
    /// The client has sent a frame behind its length where a message is a frame, for the first time.
    Stream,
    /// The guest wants an address that another one has: is that one still there?
    Wanted(MacAddr),
    /// The guest does not get an address.
    Refused(Pair, OpenError),
}

/// What nobody has been told of yet; the last of each kind.
#[derive(Debug, Default)]
pub struct News {
    there: Notify,
    had_text: Cell<bool>,
    text: Cell<bool>,
    had_stream: Cell<bool>,
    stream: Cell<bool>,
    wanted: Cell<Option<MacAddr>>,
    refused: Cell<Option<(Pair, OpenError)>>,
    had_refused: Cell<Option<Pair>>,
}

impl News {
    /// Adds an item.
    pub fn tell(&self, item: Item) {
        match item {
            Item::Text => self.text.set(!self.had_text.replace(true) || self.text.get()),
            Item::Stream => self.stream.set(!self.had_stream.replace(true) || self.stream.get()),
            Item::Wanted(mac) => self.wanted.set(Some(mac)),
            // Once for each address in a row, however often the guest tries.
            Item::Refused(pair, _) if self.had_refused.replace(Some(pair)) == Some(pair) => {}
            Item::Refused(pair, why) => self.refused.set(Some((pair, why))),
        }
        self.there.notify_one();
    }

    /// The next item.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&self) -> Item {
        loop {
            if let Some(mac) = self.wanted.take() {
                return Item::Wanted(mac);
            }
            if let Some((pair, why)) = self.refused.take() {
                return Item::Refused(pair, why);
            }
            if self.text.take() {
                return Item::Text;
            }
            if self.stream.take() {
                return Item::Stream;
            }
            self.there.notified().await;
        }
    }
}
