//! The log of all programs: one line per event on standard error.
//!
//! `10:39:28 INFO wsnic-front: client connected session=3 …`: the old program's shape. Times are
//! UTC; where the journal adds its own (`JOURNAL_STREAM` is set) they are left out.

use std::error::Error;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;
use wsnic_proto::cli::Verbosity;

/// Starts the log of this process; `program` stands in every line. Later calls do nothing.
pub fn init(program: &'static str, verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => LevelFilter::WARN,
        Verbosity::Normal => LevelFilter::INFO,
        Verbosity::Verbose => LevelFilter::DEBUG,
        Verbosity::Everything => LevelFilter::TRACE,
    };
    let format = Line { program, times: std::env::var_os("JOURNAL_STREAM").is_none() };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .fmt_fields(DefaultFields::new())
        .event_format(format)
        .finish();
    // An error means that a log is already there, which is all that is wanted.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Writes a line for the person who typed the command. A reader who has gone (`| head`) is no error.
pub fn say(text: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// An error with all that caused it, as one sentence.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

struct Line {
    program: &'static str,
    times: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        if self.times {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
            let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
            write!(writer, "{hour:02}:{minute:02}:{:02} ", seconds % 60)?;
        }
        write!(writer, "{} {}: ", meta.level(), self.program)?;
        ctx.format_fields(writer.by_ref(), event)?;
        if let Some(scope) = ctx.event_scope() {
            for span in scope.from_root() {
                let extensions = span.extensions();
                if let Some(fields) = extensions.get::<FormattedFields<N>>() {
                    write!(writer, " {fields}")?;
                }
            }
        }
        writeln!(writer)
    }
}
