//! The only place that prints: data to stdout, talk to stderr.
//!
//! Invariants: stdout carries nothing but what was asked for; JSON lines carry `"v":1`; colours only
//! on a terminal and without NO_COLOR; a closed pipe surfaces as an error that nobody prints.
//! Does not: decide what to show.

use std::io::{self, IsTerminal as _, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use starling_proto::v1::{LogStream, View};

use super::args::ClientOptions;
use super::error::CliError;
use super::table::{Block, Colour, Table, Tone, clean};
use super::units;

/// Version of the JSON lines.
const JSON_VERSION: u8 = 1;

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Human,
    Json,
}

/// Whether stderr carries footers and notes. Errors are always printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Talk {
    On,
    Off,
}

/// The process's two streams.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    talk: Talk,
    colour: Colour,
    colour_err: Colour,
}

#[derive(Serialize)]
struct JsonLine<'a, T> {
    v: u8,
    #[serde(flatten)]
    body: &'a T,
}

impl Output {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = |terminal: bool| {
            if terminal && !no_colour { Colour::On } else { Colour::Off }
        };
        Self {
            format: if options.json { Format::Json } else { Format::Human },
            talk: if options.quiet { Talk::Off } else { Talk::On },
            colour: colour(io::stdout().is_terminal()),
            colour_err: colour(io::stderr().is_terminal()),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Writes one line of data.
    pub(crate) fn line(&self, text: &str) -> Result<(), CliError> {
        write_out(format!("{text}\n").as_bytes())
    }

    /// Writes a coloured word as part of a line of data.
    pub(crate) fn paint(&self, text: &str, tone: Tone) -> String {
        self.colour.paint(text, tone)
    }

    /// How text for stdout is to be rendered.
    pub(crate) fn colour(&self) -> Colour {
        self.colour
    }

    /// Writes text that was rendered already.
    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        write_out(text.as_bytes())
    }

    /// Writes text in the place of the frame before: on a terminal over it, elsewhere below it. What does not fit on the screen is left out.
    pub(crate) fn frame(&self, text: &str) -> Result<(), CliError> {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return write_out(format!("{text}\n").as_bytes());
        }
        let rows = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_row));
        let shown = if rows == 0 { usize::MAX } else { rows - 1 };
        // Home; no wrapping, which would move what follows; each line cleared to its end, then the rest of the screen.
        let mut frame = "\u{1b}[H\u{1b}[?7l".to_owned();
        for line in text.lines().take(shown) {
            frame.push_str(line);
            frame.push_str("\u{1b}[K\n");
        }
        frame.push_str("\u{1b}[J\u{1b}[?7h");
        write_out(frame.as_bytes())
    }

    pub(crate) fn table(&self, table: &Table) -> Result<(), CliError> {
        write_out(table.render(self.colour).as_bytes())
    }

    pub(crate) fn block(&self, block: &Block) -> Result<(), CliError> {
        write_out(block.render(self.colour).as_bytes())
    }

    /// Writes objects, one a line, each with the version.
    pub(crate) fn json<T: Serialize>(&self, bodies: &[T]) -> Result<(), CliError> {
        let mut bytes = Vec::new();
        for body in bodies {
            serde_json::to_writer(&mut bytes, &JsonLine { v: JSON_VERSION, body })
                .map_err(|error| CliError::Output(error.into()))?;
            bytes.push(b'\n');
        }
        write_out(&bytes)
    }

    /// Writes a task's output to the stream it belongs to, untouched.
    pub(crate) fn task_output(&self, stream: LogStream, data: &[u8]) -> Result<(), CliError> {
        match stream {
            LogStream::Err | LogStream::EnvErr => write_all(&mut io::stderr().lock(), data),
            LogStream::Out | LogStream::EnvOut | LogStream::Pushed | LogStream::Unknown => write_out(data),
        }
    }

    /// Writes what a task's environment server says beside the task's own output.
    pub(crate) fn env_output(&self, data: &[u8]) -> Result<(), CliError> {
        write_all(&mut io::stderr().lock(), data)
    }

    /// Says something that is neither data nor an error.
    pub(crate) fn note(&self, text: &str) {
        if self.talk == Talk::On {
            write_err(&self.colour_err.paint(&clean(text), Tone::Faint));
        }
    }

    /// Says something that the user should act on.
    pub(crate) fn warn(&self, text: &str) {
        write_err(&format!("{} {}", self.colour_err.paint("warning:", Tone::Strong), clean(text)));
    }

    /// Says that something that was looked at is not as it should be.
    pub(crate) fn fault(&self, text: &str) {
        write_err(&format!("{} {}", self.colour_err.paint("fault:", Tone::Bad), clean(text)));
    }

    /// Standard output, for bytes that are no text.
    pub(crate) fn raw(&self) -> io::StdoutLock<'static> {
        io::stdout().lock()
    }

    /// Says by whom and how fresh the data above was seen.
    pub(crate) fn footer(&self, view: Option<&View>) {
        if let Some(view) = view {
            self.note(&footer_text(view, now_unix_ms()));
        }
    }

    /// Says why the verb failed, and what to do next.
    pub(crate) fn error(&self, error: &CliError) {
        if error.is_closed_pipe() {
            return;
        }
        let text: Vec<String> = error.to_string().lines().map(clean).collect();
        write_err(&format!("{} {}", self.colour_err.paint("error:", Tone::Bad), text.join("\n")));
        let hint = error.hint();
        if !hint.is_empty() {
            write_err(&format!("{} {}", self.colour_err.paint("hint:", Tone::Strong), clean(&hint)));
        }
    }
}

/// Prints what the command line parser has to say; returns the exit code (0 help, 2 usage).
pub(crate) fn usage(error: &clap::Error) -> u8 {
    // A reader that went away does not matter here.
    let _ = error.print();
    u8::try_from(error.exit_code()).unwrap_or(super::error::EXIT_USAGE)
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// `as seen by wren, 3 of 3 nodes live, 0.2 s ago`.
pub(crate) fn footer_text(view: &View, now_unix_ms: u64) -> String {
    let age_ms = now_unix_ms.saturating_sub(view.as_of_unix_ms);
    let age = if age_ms < 10_000 {
        format!("{}.{} s", age_ms / 1_000, age_ms % 1_000 / 100)
    } else {
        units::duration(age_ms)
    };
    let mut text =
        format!("as seen by {}, {} of {} nodes live, {age} ago", view.seen_by, view.live_nodes, view.roster_nodes);
    if !view.lag_note.is_empty() {
        text.push_str("; ");
        text.push_str(&view.lag_note);
    }
    text
}

/// Prints one line of data, for verbs that no node answers.
pub fn print(text: &str) {
    // A reader that went away does not matter here.
    let _closed = write_out(format!("{text}\n").as_bytes());
}

/// Talks to the person at the terminal.
pub fn say(text: &str) {
    write_err(text);
}

/// Says why a verb that no node answers failed.
pub fn complain(text: &str) {
    write_err(&format!("error: {text}"));
}

fn write_out(bytes: &[u8]) -> Result<(), CliError> {
    write_all(&mut io::stdout().lock(), bytes)
}

fn write_all(to: &mut impl Write, bytes: &[u8]) -> Result<(), CliError> {
    to.write_all(bytes).and_then(|()| to.flush()).map_err(CliError::Output)
}

fn write_err(line: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
