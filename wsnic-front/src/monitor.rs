//! What a monitoring system asks: GET /metrics, /healthz and /readyz, on a listener of their own
//! (`metrics_listen`) and on the admin socket.
//!
//! | path | answer |
//! |---|---|
//! | /metrics | counters and states, for Prometheus |
//! | /healthz | 200: the front-end works through its events |
//! | /readyz | 200: helper, network and DHCP work; 503 and a line for each problem |
//!
//! The listener is in the reach of strangers, so they get a short time, a short head and nothing that
//! costs: what they are shown is a second old at most and made once. There are never more than
//! [`MAX_CONNECTIONS`]; who comes then takes the place of who has been there longest, so that nobody
//! keeps others out by doing nothing.

use crate::health::Health;
use crate::listen::Listener;
use crate::metrics::{self, Facts, OfNetwork};
use crate::session::Context;
use crate::small_http::{self, Answer};
use crate::stream::Socket;
use nix::time::{ClockId, clock_gettime};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Connections at a time, on all listeners together. A monitoring system needs one.
pub const MAX_CONNECTIONS: usize = 32;
/// A request and its answer have this long, all in all.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a request.
const MAX_REQUEST: usize = 4096;
/// Strangers are shown what is at most this old.
const FRESH: Duration = Duration::from_secs(1);
/// Pause after an accept that failed, such as for want of fds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What is looked at.
pub struct Monitor {
    context: Rc<Context>,
    health: Rc<Health>,
    handshakes: Rc<Cell<usize>>,
    started: SystemTime,
    /// What strangers are shown of /metrics.
    shown: Recent<String>,
    /// And of /readyz.
    shown_problems: Recent<String>,
    /// Those that are connected, the oldest first.
    connections: RefCell<VecDeque<AbortHandle>>,
}

impl Monitor {
    /// Of a front-end that begins to serve. `handshakes` counts connections that are no session yet.
    pub fn new(context: &Rc<Context>, handshakes: &Rc<Cell<usize>>) -> Monitor {
        Monitor {
            context: Rc::clone(context),
            health: Health::new(Rc::clone(&context.helper)),
            handshakes: Rc::clone(handshakes),
            started: SystemTime::now(),
            shown: Recent::default(),
            shown_problems: Recent::default(),
            connections: RefCell::default(),
        }
    }

    /// The answer to a GET; None: there is nothing by that name.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn answer(&self, target: &str) -> Option<Answer> {
        match path(target) {
            "/metrics" => Some(Answer::of_kind(metrics::KIND, self.metrics().await)),
            "/healthz" => Some(Answer::text("200 OK", "ok\n")),
            "/readyz" => Some(readiness(&self.problems().await)),
            _ => None,
        }
    }

    /// What does not work, a line each; empty: nothing.
    async fn problems(&self) -> String {
        self.health.problems(&self.context.networks).await.join("\n")
    }

    async fn metrics(&self) -> String {
        let context = &self.context;
        let helper = self.health.helper().await;
        let totals = context.sessions.totals().await;
        let networks = context.networks.iter().map(|network| OfNetwork {
            name: network.options.name.to_string(),
            max_clients: network.options.max_clients,
            totals: totals.get(&network.number).copied().unwrap_or_default(),
            dhcp: network.dhcp_state(),
        });
        let facts = Facts {
            helper,
            networks: networks.collect(),
            refused: context.sessions.refusals(),
            bans: context.addresses.bans(Instant::now()).len(),
            connections: context.sessions.connections(),
            handshakes: self.handshakes.get(),
            cpu: cpu_seconds(),
            started: self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        };
        metrics::text(&facts)
    }

    /// The answer to a stranger, who may ask as often as he likes.
    async fn answer_stranger(&self, target: &str) -> Option<Answer> {
        match path(target) {
            "/metrics" => {
                Some(Answer::of_kind(metrics::KIND, self.shown.get(self.metrics()).await))
            }
            "/readyz" => Some(readiness(&self.shown_problems.get(self.problems()).await)),
            _ => self.answer(target).await,
        }
    }

    async fn exchange(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let (answer, head_only) = match small_http::receive(&mut stream, MAX_REQUEST).await? {
            Err(answer) => (answer, false),
            Ok(request) => match &*request.method {
                "GET" | "HEAD" => {
                    let answer = self.answer_stranger(&request.target).await;
                    let text = "there are /metrics, /healthz and /readyz\n";
                    let answer = answer.unwrap_or_else(|| Answer::text("404 Not Found", text));
                    (answer, request.method == "HEAD")
                }
                _ => (Answer::text("405 Method Not Allowed", "GET and HEAD only\n"), false),
            },
        };
        answer.send(&mut stream, head_only).await
    }

    /// Makes room for one more.
    fn make_room(&self) {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.is_finished());
        while connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
    }
}

/// The answer to /readyz.
fn readiness(problems: &str) -> Answer {
    match problems {
        "" => Answer::text("200 OK", "ok\n"),
        problems => Answer::text("503 Service Unavailable", format!("{problems}\n")),
    }
}

/// Something that is good for [`FRESH`] since it was made.
struct Recent<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent(Mutex::default())
    }
}

impl<T: Clone> Recent<T> {
    /// That, or what `make` makes; one does, and all others wait for it.
    ///
    /// # Cancel safety
    /// The next one makes it.
    async fn get(&self, make: impl Future<Output = T>) -> T {
        let mut shown = self.0.lock().await;
        match &*shown {
            Some((at, it)) if at.elapsed() < FRESH => it.clone(),
            _ => {
                let made = make.await;
                shown.insert((Instant::now(), made)).1.clone()
            }
        }
    }
}

/// Without the query.
fn path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// Processor time of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    time.map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// A connection of either kind.
trait Line: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Line for T {}

/// Answers on a listener until the task is dropped.
pub async fn serve(monitor: Rc<Monitor>, listener: Listener) {
    // They end with this task.
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let stream: Box<dyn Line> = match listener.accept().await {
            // Banned, or too fast.
            Ok((_, peer, _)) if !monitor.context.admits(peer) => continue,
            Ok((Socket::Tcp(stream), ..)) => Box::new(stream),
            Ok((Socket::Unix(stream), ..)) => Box::new(stream),
            Err(error) => {
                if monitor.context.log.strangers.allows() {
                    tracing::error!(%error, "cannot accept on metrics_listen at the moment");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        monitor.make_room();
        let asked = Rc::clone(&monitor);
        let task = timeout(LIMIT, async move { asked.exchange(stream).await });
        monitor.connections.borrow_mut().push_back(tasks.spawn_local(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[tokio::test]
    async fn what_is_recent_is_shown_again_and_what_is_not_is_made_anew() {
        let recent = Recent::default();
        assert_eq!(recent.get(async { "first" }).await, "first");
        // However slow this machine is.
        recent.0.lock().await.as_mut().unwrap().0 = Instant::now() + FRESH * 1000;
        assert_eq!(recent.get(async { unreachable!("it is there") }).await, "first");
        recent.0.lock().await.as_mut().unwrap().0 = Instant::now() - FRESH;
        assert_eq!(recent.get(async { "second" }).await, "second");
    }

    #[test]
    fn it_is_made_by_one_and_by_the_next_if_that_one_is_gone() {
        let recent = Recent::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut one = Box::pin(recent.get(std::future::pending()));
        assert!(one.as_mut().poll(&mut context).is_pending());
        let mut other = pin!(recent.get(async { "made" }));
        assert!(other.as_mut().poll(&mut context).is_pending(), "it waits");
        drop(one);
        assert_eq!(other.as_mut().poll(&mut context), Poll::Ready("made"));
    }
}
