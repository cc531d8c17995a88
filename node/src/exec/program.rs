//! From a `Launch` to a command the system can start quickly, and from a refusal to words.
//!
//! Invariants: the program handed to the standard library is a path (with a bare name and a changed PATH it would fork
//! instead of using posix_spawn, which costs tens of milliseconds in a large parent); no `pre_exec` for the same reason.
//! Does not: look after what it started.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::pool::as_signal;
use super::{Kill, Launch};

const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "TMPDIR", "TZ", "SHELL"];
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why nothing was started: an exit code as a shell would give it, and words.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: i32,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn new(code: i32, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// Says which one of a pair was refused.
    pub(super) fn of(self, which: &str) -> Self {
        Self { reason: format!("the {which}: {}", self.reason), ..self }
    }

    /// It was killed while it waited.
    pub(super) fn killed(how: Kill) -> Self {
        Self::new(128 + as_signal(how).as_raw(), "it was killed before it started")
    }
}

/// Starts the launch's program, as the leader of a process group of its own.
pub(super) fn spawn(launch: &Launch) -> Result<Child, Refusal> {
    let (mut command, program) = command(launch)?;
    command.spawn().map_err(|error| explain(launch, &program, &error))
}

/// The command, and the path of its program for `explain`.
fn command(launch: &Launch) -> Result<(Command, PathBuf), Refusal> {
    let Some((name, arguments)) = launch.argv.split_first() else {
        return Err(Refusal::new(127, "the command is empty"));
    };
    if name.is_empty() {
        return Err(Refusal::new(127, "the name of the program is empty"));
    }
    if let Some((name, _)) = launch.env.iter().find(|(name, _)| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(Refusal::new(126, format!("{name:?} cannot be the name of an environment variable")));
    }
    let texts = launch.argv.iter().chain(launch.env.iter().map(|(_, value)| value));
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(Refusal::new(126, "an argument or environment value contains a zero byte"));
    }
    let program = if name.contains('/') { PathBuf::from(name) } else { look_up(name, launch)? };
    let mut command = Command::new(&program);
    command.args(arguments).env_clear().process_group(0);
    if program.as_os_str() != name.as_str() {
        command.arg0(name);
    }
    command.envs(inherited().iter().map(|(name, value)| (name, value)));
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));
    if let Some(dir) = &launch.cwd {
        command.current_dir(dir);
    }
    command.stdin(if launch.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok((command, program))
}

/// The daemon's environment does not change while it runs, so it is read once.
fn inherited() -> &'static [(&'static str, OsString)] {
    static VALUES: OnceLock<Vec<(&'static str, OsString)>> = OnceLock::new();
    VALUES.get_or_init(|| {
        let set = INHERITED.iter().filter_map(|name| Some((*name, env::var_os(name)?)));
        let path = env::var_os("PATH").is_none().then(|| ("PATH", OsString::from(PATH_DEFAULT)));
        set.chain(path).collect()
    })
}

/// Finds a bare name as `execvp` would, in the PATH that the task will have.
fn look_up(name: &str, launch: &Launch) -> Result<PathBuf, Refusal> {
    let own = launch.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| OsStr::new(value));
    let daemon = || inherited().iter().find(|(name, _)| *name == "PATH").map(|(_, value)| value.as_os_str());
    let path = own.or_else(daemon).unwrap_or_else(|| OsStr::new(PATH_DEFAULT));
    let mut denied = None;
    for dir in env::split_paths(path) {
        let candidate = dir.join(name);
        // Entries that are not absolute mean the task's directory, for the look-up as for the start.
        let seen = launch.cwd.as_deref().map_or_else(|| candidate.clone(), |cwd| cwd.join(&candidate));
        let Ok(metadata) = seen.metadata() else {
            continue;
        };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            return Ok(if candidate.as_os_str() == name { Path::new(".").join(candidate) } else { candidate });
        }
        denied = denied.or(Some(seen));
    }
    Err(match denied {
        Some(found) => Refusal::new(126, format!("{} is not executable", found.display())),
        None => Refusal::new(127, format!("command not found: {name} (searched PATH={})", path.display())),
    })
}

/// Puts the system's refusal to start `program` into words. The checks come after the fact: they cost nothing when all
/// goes well, and cannot be overtaken by a change in between.
fn explain(launch: &Launch, program: &Path, error: &io::Error) -> Refusal {
    if let Some(dir) = &launch.cwd {
        match dir.metadata() {
            Err(error) => {
                return Refusal::new(126, format!("cannot enter the working directory {}: {error}", dir.display()));
            }
            Ok(metadata) if !metadata.is_dir() => {
                return Refusal::new(126, format!("the working directory {} is not a directory", dir.display()));
            }
            Ok(_) => {}
        }
    }
    let seen = launch.cwd.as_deref().map_or_else(|| program.to_owned(), |cwd| cwd.join(program));
    let shown = program.display();
    match error.kind() {
        io::ErrorKind::NotFound if seen.exists() => {
            Refusal::new(126, format!("{shown} exists, but the interpreter or loader it names does not"))
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Refusal::new(127, format!("command not found: {shown}"))
        }
        io::ErrorKind::PermissionDenied if seen.is_dir() => Refusal::new(126, format!("{shown} is a directory")),
        io::ErrorKind::PermissionDenied => Refusal::new(126, format!("{shown} is not executable: {error}")),
        io::ErrorKind::ArgumentListTooLong => Refusal::new(126, "arguments and environment together are too long"),
        // `ErrorKind` is non-exhaustive and has no stable name for a bad executable format.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            Refusal::new(126, format!("{shown} is no program for this machine, and no script with a #! line"))
        }
        _ => Refusal::new(126, format!("the machine could not start {shown}: {error}")),
    }
}
