//! The throughput sample: from this guest to another one, through the whole server, both ways of it.
//!
//! The gateway would not do: what it answers is limited for all guests together. The other guest
//! is there for the sample only. Frames that are lost are sent no more; how many are on the way
//! adapts to that, as TCP's window does, so that a slow or limited line is filled and not flooded.

use super::frames::{self, IP_HEADER, Seen, UDP_HEADER};
use super::guest::{Guest, random};
use super::line::Line;
use super::report::{Outcome, Trouble};
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use wsnic_proto::MacAddr;

/// How long frames are sent.
const SAMPLE: Duration = Duration::from_millis(1000);
/// What has not come by then is lost.
const PATIENCE: Duration = Duration::from_millis(250);
/// Frames on the way, at first and at most.
const FIRST_WINDOW: usize = 8;
const MAX_WINDOW: usize = 512;
/// Discard (RFC 863).
const PORT: u16 = 9;

/// Sends for a second.
///
/// # Errors
/// The other guest is on the network, and nothing comes.
pub async fn sample(line: &Line, guest: &mut Guest, mtu: u16) -> Result<Outcome, Trouble> {
    let skipped =
        |why: &Trouble| Outcome::Skipped(format!("there is no second guest: {}", why.what));
    let mut other = match Guest::connect(line).await {
        Ok(other) => other,
        Err(why) => return Ok(skipped(&why)),
    };
    let outcome = match other.take_address().await {
        Ok(_) => between(guest, &mut other, mtu).await,
        Err(why) => Ok(skipped(&why)),
    };
    other.leave().await;
    outcome
}

async fn between(guest: &mut Guest, other: &mut Guest, mtu: u16) -> Result<Outcome, Trouble> {
    let address = other.address();
    let Some(mac) = meet(guest, other, address).await? else {
        let why = "guests do not see each other (isolation=yes, or a room of its own for each)";
        return Ok(Outcome::Skipped(why.to_owned()));
    };
    let mark: [u8; 8] = random();
    let mut data = mark.to_vec();
    let room = usize::from(mtu).saturating_sub(IP_HEADER + UDP_HEADER);
    data.resize(room.max(mark.len()), 0x55);
    let frame = frames::udp(guest.way((mac, address)), (PORT, PORT), &data);

    let started = Instant::now();
    let mut last = started;
    let (mut window, mut waiting, mut sent, mut received) = (FIRST_WINDOW, 0_usize, 0_u64, 0_u64);
    loop {
        let is_over = started.elapsed() >= SAMPLE;
        if is_over && waiting == 0 {
            break;
        }
        while !is_over && waiting < window {
            guest.feed(frame.clone()).await?;
            waiting += 1;
            sent += 1;
        }
        guest.flush().await?;
        match timeout(PATIENCE, other.receive()).await {
            Ok(frame) => {
                let is_ours = matches!(frames::parse(&frame?), Some(Seen::Udp { data, .. }) if data.starts_with(&mark));
                if is_ours {
                    received += 1;
                    last = Instant::now();
                    waiting = waiting.saturating_sub(1);
                    window = (window + 1).min(MAX_WINDOW);
                }
            }
            Err(_) => {
                waiting = 0;
                window = (window / 2).max(FIRST_WINDOW);
            }
        }
    }
    let time = last - started;
    if received == 0 {
        return Err(Trouble::new(
            "two guests find each other by ARP, and no packet passes between them",
            "a firewall of the server's machine sees the bridge's frames (br_netfilter) and drops them: \
             `wsnic check` there names it",
        ));
    }
    let bits = received as f64 * frame.len() as f64 * 8.0;
    let mbit = (bits / time.as_secs_f64().max(1e-6) / 1e5).round() / 10.0;
    let lost = sent.saturating_sub(received);
    let what = format!("{mbit} Mbit/s from guest to guest, {lost} of {sent} frames lost");
    let details =
        json!({ "mbit_per_second": mbit, "sent": sent, "lost": lost, "frame_bytes": frame.len() });
    Ok(Outcome::Good { time, what, details })
}

/// The other guest's MAC address as the first one learns it by ARP, while the other one listens.
async fn meet(
    guest: &mut Guest,
    other: &mut Guest,
    address: Ipv4Addr,
) -> Result<Option<MacAddr>, Trouble> {
    let listening = async {
        loop {
            if let Err(why) = other.receive().await {
                return why;
            }
        }
    };
    tokio::select! {
        found = guest.resolve(address) => Ok(found?.map(|(mac, _)| mac)),
        why = listening => Err(why),
    }
}
