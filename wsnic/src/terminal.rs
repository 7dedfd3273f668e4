//! A terminal that shows one screen after the other, and hears single keys.

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use std::io::{self, Read as _, Write as _, stdin, stdout};
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wsnic_os::watch::watch;

/// The other screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To its begin.
const HOME: &str = "\x1b[H";
/// What is left of the line, and of the screen, from before.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";
/// Columns and lines of a terminal that does not say.
const USUAL: (usize, usize) = (80, 24);

/// A terminal, as it was when this is dropped.
pub struct Terminal {
    /// What keys come from, and how it was; None: not from a terminal.
    keys: Option<(AsyncFd<OwnedFd>, Termios)>,
}

impl Terminal {
    /// Takes the terminal of this process; None: its output goes somewhere else.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<Option<Terminal>> {
        if !isatty(stdout()) {
            return Ok(None);
        }
        let keys = if isatty(stdin()) { Some(keys()?) } else { None };
        let terminal = Terminal { keys };
        write(ENTER)?;
        Ok(Some(terminal))
    }

    /// Columns and lines.
    pub fn size() -> (usize, usize) {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => USUAL,
        }
    }

    /// Shows lines, each as far as there is room.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&self, text: &str) -> io::Result<()> {
        let (columns, lines) = Terminal::size();
        let cut = |line: &str| line.chars().take(columns).collect::<String>() + CLEAR_LINE;
        let shown: Vec<String> = text.lines().take(lines).map(cut).collect();
        write(&format!("{HOME}{}{CLEAR_REST}", shown.join("\r\n")))
    }

    /// Waits for a key; never returns where there are none.
    ///
    /// # Errors
    /// The terminal is gone.
    pub async fn key(&self) -> io::Result<u8> {
        let Some((keys, _)) = &self.keys else { return std::future::pending().await };
        loop {
            let mut ready = keys.readable().await?;
            let mut key = [0];
            match stdin().read(&mut key)? {
                // Nothing: it was somebody else's, or the terminal's end.
                0 => ready.clear_ready(),
                _ => return Ok(key[0]),
            }
        }
    }
}

/// Keys one by one, without waiting for a line, and not shown. Ctrl-C stays what it is.
fn keys() -> io::Result<(AsyncFd<OwnedFd>, Termios)> {
    let before = tcgetattr(stdin())?;
    let mut single = before.clone();
    single.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
    (single.special_codes[SpecialCodeIndex::VMIN], single.special_codes[SpecialCodeIndex::VTIME]) =
        (0, 0);
    tcsetattr(stdin(), OptionalActions::Now, &single)?;
    let fd = stdin().as_fd().try_clone_to_owned()?;
    Ok((watch(fd, Interest::READABLE)?, before))
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where this fails nobody sees it.
        let _ = write(LEAVE);
        if let Some((_, before)) = &self.keys {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    stdout().write_all(text.as_bytes())?;
    stdout().flush()
}
