//! `wsnic top`: who moves how much at the moment, asked each second.

use crate::admin::{OrderError, order};
use crate::rows::{Row, age, table};
use crate::terminal::Terminal;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use wsnic_os::log::say;

/// Time between two looks.
const EACH: Duration = Duration::from_secs(1);

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Nobody to ask.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The terminal is gone.
    #[error("cannot use the terminal")]
    Terminal(#[from] io::Error),
}

/// Shows a table anew each second, until q or Ctrl-C; one table where nobody can press them.
///
/// # Errors
/// wsnic does not answer, or the terminal is gone.
pub fn top(socket: &Path) -> Result<(), TopError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(socket))
}

async fn watch(socket: &Path) -> Result<(), TopError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut ticks = tokio::time::interval(EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = look(socket).await?;
    ticks.tick().await;
    // Not before there is something to show: an error is better seen on the usual screen.
    let terminal = Terminal::open()?;
    if let Some(terminal) = &terminal {
        terminal.show(&screen(&last, &last))?;
    }
    loop {
        let key = async {
            match &terminal {
                Some(terminal) => terminal.key().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            key = key => match key? {
                b'q' | b'Q' => return Ok(()),
                _ => continue,
            },
            _ = ticks.tick() => {}
        }
        let now = look(socket).await?;
        match &terminal {
            Some(terminal) => terminal.show(&screen(&last, &now))?,
            None => {
                say(screen(&last, &now).trim_end());
                return Ok(());
            }
        }
        last = now;
    }
}

/// All sessions at a moment.
struct Look {
    at: Instant,
    rows: Vec<Row>,
}

async fn look(socket: &Path) -> Result<Look, OrderError> {
    let text = order(socket, "GET /sessions", &[]).await?;
    let rows = serde_json::from_str(&text);
    let rows = rows.map_err(|error| OrderError::Refused(error.to_string()))?;
    Ok(Look { at: Instant::now(), rows })
}

/// What a session has moved in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Rate {
    bytes_in: f64,
    bytes_out: f64,
    frames_in: f64,
    frames_out: f64,
}

impl Rate {
    /// From one look to the next; a session that is new has moved all that it has since.
    fn between(before: Option<&Row>, now: &Row, seconds: f64) -> Rate {
        let rate =
            |of: fn(&Row) -> u64| of(now).saturating_sub(before.map_or(0, of)) as f64 / seconds;
        Rate {
            bytes_in: rate(|row| row.bytes_in),
            bytes_out: rate(|row| row.bytes_out),
            frames_in: rate(|row| row.frames_in),
            frames_out: rate(|row| row.frames_out),
        }
    }

    fn bytes(&self) -> f64 {
        self.bytes_in + self.bytes_out
    }
}

/// What is shown: the sum, and who moves most first.
fn screen(last: &Look, now: &Look) -> String {
    // One look alone has no rates; nor has a second one that is too near.
    let seconds = now.at.duration_since(last.at).as_secs_f64().max(0.1);
    let before: HashMap<u64, &Row> = last.rows.iter().map(|row| (row.id, row)).collect();
    let mut rates: Vec<(Rate, &Row)> = now
        .rows
        .iter()
        .map(|row| (Rate::between(before.get(&row.id).copied(), row, seconds), row))
        .collect();
    rates.sort_by(|(a, one), (b, other)| {
        b.bytes().total_cmp(&a.bytes()).then(one.id.cmp(&other.id))
    });
    let sum = |of: fn(&Rate) -> f64| amount(rates.iter().map(|(rate, _)| of(rate)).sum());
    let heading = format!(
        "{} sessions  from guests {}B/s {} frames/s  to guests {}B/s {} frames/s  (q ends)\n\n",
        now.rows.len(),
        sum(|rate| rate.bytes_in),
        sum(|rate| rate.frames_in),
        sum(|rate| rate.bytes_out),
        sum(|rate| rate.frames_out),
    );
    heading + &table(HEADING, rates.iter().map(|(rate, row)| line(rate, row)))
}

const HEADING: [&str; 12] = [
    "ID", "SENT/s", "GOT/s", "FRAMES/s", "RTT", "DROPPED", "AGE", "ADDRESS", "PORT", "NETWORK",
    "IDENTITY", "CLIENT",
];

fn line(rate: &Rate, row: &Row) -> [String; 12] {
    [
        row.id.to_string(),
        amount(rate.bytes_in),
        amount(rate.bytes_out),
        amount(rate.frames_in + rate.frames_out),
        row.rtt(),
        (row.dropped + row.late).to_string(),
        age(row.seconds),
        row.address(),
        row.port.clone(),
        row.network.clone(),
        row.identity.clone(),
        row.client.clone(),
    ]
}

/// In three digits or so: 0, 950, 1.2k, 35k, 4.5M.
fn amount(value: f64) -> String {
    let (mut value, mut unit) = (value, "");
    for larger in ["k", "M", "G", "T"] {
        // What would be rounded to 1000 is the next unit's.
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    let digits = usize::from(!unit.is_empty() && value < 9.95);
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, bytes_in: u64, bytes_out: u64) -> Row {
        Row { id, bytes_in, bytes_out, frames_in: bytes_in / 100, ..Row::default() }
    }

    #[test]
    fn who_moves_most_in_a_second_stands_first() {
        let at = Instant::now();
        let before = Look { at, rows: vec![row(1, 1_000_000, 0), row(2, 0, 0), row(3, 500, 500)] };
        let rows = vec![row(1, 1_000_200, 0), row(2, 4000, 6000), row(3, 500, 500), row(4, 0, 300)];
        let now = Look { at: at + Duration::from_secs(2), rows };
        let text = screen(&before, &now);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("4 sessions  from guests 2.1kB/s"), "{text}");
        let ids: Vec<&str> =
            lines[3..].iter().map(|line| line.split(' ').next().expect("a number")).collect();
        assert_eq!(ids, ["2", "4", "1", "3"], "{text}");
        let cells: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(cells[1..4], ["2.0k", "3.0k", "20"], "{text}");
    }

    #[test]
    fn amounts_have_the_unit_that_fits() {
        for (value, text) in [
            (0.0, "0"),
            (0.4, "0"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (1234.0, "1.2k"),
            (9_960.0, "10k"),
            (35_400.0, "35k"),
            (999_600.0, "1.0M"),
            (4_500_000.0, "4.5M"),
            (2e12, "2.0T"),
            (2e15, "2000T"),
        ] {
            assert_eq!(amount(value), text, "{value}");
        }
    }
}
