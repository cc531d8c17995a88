//! Tracing to stderr.
//!
//! Does not: print results; `cli::output` does.

use tracing_subscriber::EnvFilter;

/// A log filter that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("log level `{0}` is not one of error, warn, info, debug, trace, nor a filter such as info,starling_net=debug")]
pub struct BadFilter(String);

/// Sends tracing to stderr, filtered by `level`.
///
/// # Errors
/// If `level` does not parse.
pub fn init(level: &str) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(expand(level)).map_err(|_parse| BadFilter(level.to_owned()))?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    // A log on a full disk must not bring the node down: what the subscriber cannot write it would complain of by `eprintln!`, which panics.
    let subscriber = subscriber.log_internal_errors(false);
    // A second call, in one process with several nodes, keeps the first.
    let _already = subscriber.with_target(false).try_init();
    Ok(())
}

/// A plain level is for Starling's own messages; libraries speak up only when something is wrong.
fn expand(level: &str) -> String {
    let plain = level.chars().all(|c| c.is_ascii_alphabetic());
    if !plain || level == "trace" || level == "off" {
        return level.to_owned();
    }
    format!("warn,libp2p_gossipsub=error,starling_core={level},starling_net={level},starling_node={level}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_levels_keep_libraries_quiet() {
        assert!(expand("info").starts_with("warn,"));
        assert_eq!(expand("info,starling_net=debug"), "info,starling_net=debug");
        assert!(EnvFilter::try_new(expand("loud")).is_err());
    }
}
