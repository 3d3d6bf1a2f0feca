//! `walcast config`: every key there is, and what holds and why.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use clap::Subcommand;

use crate::cli::CliError;
use crate::cli::ConfigArguments;
use crate::config::keys::KEYS;
use crate::config::keys::Key;
use crate::config::keys::Kind;
use crate::control::Setting;

/// How wide a line of the default file may be.
const WIDTH: usize = 100;

/// Prints every key with its default, or what holds and where it comes from
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast config default > walcast.toml     a file to begin with\n  \
    walcast config show --sources             what holds, and where it was said\n  \
    walcast config show --json")]
pub struct ConfigCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Prints a configuration file with every key in it, commented out
    Default,
    /// Prints every key's value, as the daemon would take it; secrets stay in their files
    Show(Show),
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    config: ConfigArguments,

    /// Says where each value comes from
    #[arg(long)]
    sources: bool,

    /// Prints JSON, always with the sources
    #[arg(long)]
    json: bool,
}

impl ConfigCommand {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let text = match self.what {
            What::Default => default_file(),
            What::Show(show) => {
                let config = show.config.load()?;
                let settings = &config.values.settings;
                if show.json { json(settings) } else { lines(settings, show.sources) }
            }
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A configuration file with every key, its purpose and its default.
#[must_use]
pub fn default_file() -> String {
    let mut text = String::from(
        "# Every key of walcast's configuration. What is commented out is the default, or an empty \
         place\n# where there is none. docs/configuration.md says more.\n",
    );
    let mut last = "";
    for key in KEYS.iter() {
        let (section, leaf) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if section != last {
            let title = match section.strip_suffix("[]") {
                Some(repeated) => format!("# As many of these as there are.\n# [[{repeated}]]"),
                None => format!("[{section}]"),
            };
            let _infallible = write!(text, "\n{title}\n");
            last = section;
        }
        let restart = if key.reloadable { "" } else { " Takes a restart." };
        wrap(&mut text, &format!("{} ({}){restart}", key.purpose, key.kind));
        let _infallible = writeln!(text, "# {leaf} = {}", literal(key));
    }
    text
}

/// A key's default as TOML.
fn literal(key: &Key) -> String {
    let default = key.default.unwrap_or_default();
    match key.kind {
        Kind::Integer { .. } | Kind::Boolean if !default.is_empty() => default.to_owned(),
        Kind::Texts if default.is_empty() => "[]".to_owned(),
        _ => toml::Value::from(default).to_string(),
    }
}

/// Adds a comment, broken between words.
fn wrap(text: &mut String, comment: &str) {
    let mut line = String::from("#");
    for word in comment.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

fn lines(settings: &[Setting], sources: bool) -> String {
    let mut text = String::new();
    for Setting { name, value, source, .. } in settings {
        let line = format!("{name} = {value}");
        let _infallible = match sources {
            true => writeln!(text, "{line:<56}  # {source}"),
            false => writeln!(text, "{}", line.trim_end()),
        };
    }
    text
}

fn json(settings: &[Setting]) -> String {
    let object = |it: &Setting| {
        serde_json::json!({
            "name": it.name,
            "value": it.value,
            "source": it.source,
            "reloadable": it.reloadable,
        })
    };
    let all = serde_json::Value::Array(settings.iter().map(object).collect());
    format!("{all:#}\n")
}
