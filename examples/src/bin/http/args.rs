//! The flags.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
An HTTP/1.1 service with JSON in and out, on gort and hyper.

Without --serve it puts itself under load over loopback, prints what the clients saw and what the
scheduler did, and ends.

  --connections N    keep-alive connections of the load        [64]
  --seconds S        how long the load lasts                   [4]
  --serve [ADDR]     serve until Ctrl-C instead                [127.0.0.1:8080]
  --workers W        processors of the runtime                 [the CPUs it may use]
  --help             this text
";

/// What the user wants.
pub(crate) struct Args {
    pub(crate) workers: Option<usize>,
    pub(crate) mode: Mode,
}

/// The two ways to run.
pub(crate) enum Mode {
    /// Until Ctrl-C.
    Serve { address: SocketAddr },
    /// Under its own load.
    Load {
        connections: usize,
        duration: Duration,
    },
}

impl Args {
    /// Reads the flags; `None` if they ask for help.
    pub(crate) fn parse(flags: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut flags = flags.peekable();
        let (mut workers, mut connections, mut seconds, mut serve) = (None, None, None, None);
        while let Some(flag) = flags.next() {
            // `--flag value` and `--flag=value`.
            let (flag, mut value) = match flag.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (flag, None),
            };
            let takes_value = matches!(flag.as_str(), "--connections" | "--seconds" | "--workers");
            if value.is_none() && (takes_value || flag == "--serve") {
                value = flags.next_if(|next| !next.starts_with("--"));
            }
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--connections" => connections = Some(number(&flag, value, 1, 100_000)?),
                "--seconds" => seconds = Some(number(&flag, value, 0.1, 86_400.0)?),
                "--workers" => workers = Some(number(&flag, value, 1, 1024)?),
                "--serve" => serve = Some(address(value)?),
                other => return Err(format!("There is no flag {other}.")),
            }
        }
        let mode = match serve {
            Some(_) if connections.is_some() || seconds.is_some() => {
                return Err("--connections and --seconds are the load's: not with --serve.".into());
            }
            Some(address) => Mode::Serve { address },
            None => Mode::Load {
                connections: connections.unwrap_or(64),
                duration: Duration::from_secs_f64(seconds.unwrap_or(4.0)),
            },
        };
        Ok(Some(Self { workers, mode }))
    }
}

fn number<T>(flag: &str, value: Option<String>, least: T, most: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let wanted = format!("{flag} wants a number from {least} to {most}");
    let value = value.ok_or_else(|| format!("{wanted}."))?;
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{wanted}, not {value:?}.")),
    }
}

fn address(value: Option<String>) -> Result<SocketAddr, String> {
    let value = value.unwrap_or_else(|| "127.0.0.1:8080".into());
    value.parse().map_err(|_| {
        format!("--serve wants an address such as 127.0.0.1:8080 or [::1]:0, not {value:?}.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &str) -> Result<Option<Args>, String> {
        Args::parse(flags.split_whitespace().map(String::from))
    }

    fn error(flags: &str) -> String {
        match parse(flags) {
            Err(error) => error,
            Ok(_) => panic!("{flags} was accepted"),
        }
    }

    #[test]
    fn flags_mean_what_the_help_says() {
        let args = parse("--connections 8 --seconds=0.5 --workers 2")
            .unwrap()
            .unwrap();
        assert_eq!(args.workers, Some(2));
        assert!(matches!(
            args.mode,
            Mode::Load { connections: 8, duration } if duration == Duration::from_millis(500)
        ));
        for (flags, expected) in [
            ("--serve", "127.0.0.1:8080"),
            ("--serve [::1]:0 --workers 1", "[::1]:0"),
            ("--serve --workers 1", "127.0.0.1:8080"),
        ] {
            let Mode::Serve { address } = parse(flags).unwrap().unwrap().mode else {
                panic!("{flags} does not serve");
            };
            assert_eq!(address.to_string(), expected);
        }
        assert!(parse("--workers 2 --help").unwrap().is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        assert!(error("--conections 8").contains("--conections"));
        assert!(error("--connections 0").contains("from 1"));
        assert!(error("--seconds NaN").contains("NaN"));
        assert!(error("--workers").contains("--workers wants"));
        assert!(error("--serve localhost").contains("localhost"));
        assert!(error("--serve --seconds 2").contains("not with --serve"));
    }
}
