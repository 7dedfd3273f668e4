//! The log of all programs: one line per event, on standard error or to the syslog daemon.
//!
//! `10:39:28 INFO wsnic-front: client connected client=…`: the old program's shape. Times are UTC.
//! Where standard error is the journal, lines have a priority in place of the time, which the
//! journal adds; so have those for the syslog daemon. `log_format=json` makes each line an object.

mod json;
mod sink;

use sink::{Sink, Way};
use std::error::Error;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use wsnic_proto::cli::Verbosity;
use wsnic_proto::settings::LogFormat;

/// How a program logs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// How much.
    pub verbosity: Verbosity,
    /// What a line looks like.
    pub format: LogFormat,
    /// Whether it goes to the syslog daemon.
    pub use_syslog: bool,
}

impl From<Verbosity> for Style {
    /// Text on standard error.
    fn from(verbosity: Verbosity) -> Style {
        Style { verbosity, ..Style::default() }
    }
}

/// Starts the log of this process; `program` stands in every line. Later calls change nothing.
///
/// To be called after [`crate::inherited::take`], which closes what it does not know.
///
/// True if the log goes to the syslog daemon: its socket is open from here on, so that a process may
/// lock itself in. If it cannot be had, the log says so, on standard error.
pub fn init(program: &'static str, style: Style) -> bool {
    let level = match style.verbosity {
        Verbosity::Quiet => LevelFilter::WARN,
        Verbosity::Normal => LevelFilter::INFO,
        Verbosity::Verbose => LevelFilter::DEBUG,
        Verbosity::Everything => LevelFilter::TRACE,
    };
    let (sink, trouble) = Sink::open(style.use_syslog);
    let way = sink.way();
    let format = Line { program, way, format: style.format };
    let is_plain = way == Way::Plain && style.format == LogFormat::Text;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(sink)
        .with_ansi(is_plain && std::io::stderr().is_terminal())
        .fmt_fields(DefaultFields::new())
        .event_format(format)
        .finish();
    // An error means that a log is already there, which is all that is wanted.
    let _ = tracing::subscriber::set_global_default(subscriber);
    if let Some(error) = trouble {
        tracing::warn!(
            "--use-syslog: no syslog daemon listens at {} ({error}), the log goes to stderr",
            sink::SYSLOG
        );
    }
    way == Way::Syslog
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
    way: Way,
    format: LogFormat,
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
        let level = *event.metadata().level();
        match self.way {
            Way::Plain => {}
            Way::Journal => write!(writer, "<{}>", severity(level))?,
            // RFC 3164 §4.1; the daemon adds time and host.
            Way::Syslog => write!(writer, "<{}>{}: ", DAEMON + severity(level), self.program)?,
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.format == LogFormat::Json {
            return writeln!(writer, "{}", json::object(self.program, since_1970, event));
        }
        if self.way == Way::Plain {
            let seconds = since_1970.as_secs();
            let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
            write!(writer, "{hour:02}:{minute:02}:{:02} ", seconds % 60)?;
        }
        if self.way != Way::Syslog {
            write!(writer, "{level} {}: ", self.program)?;
        }
        if writer.has_ansi_escapes() {
            ctx.format_fields(writer.by_ref(), event)?;
            return writeln!(writer);
        }
        let mut text = String::new();
        ctx.format_fields(Writer::new(&mut text), event)?;
        // A line is a line, whatever a file's name or somebody else's error has in it.
        writeln!(writer, "{}", text.replace(['\n', '\r'], " "))
    }
}

/// The facility of daemons, times eight (RFC 3164 §4.1.1).
const DAEMON: u8 = 3 << 3;

/// syslog(3), and sd-daemon(3) for the journal.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
