//! What is wrong with a configuration, all of it.

use std::fmt;
use std::path::PathBuf;

/// Where a value was given. Ordered as one would read it: the file from top to bottom first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In the file, at a line and a column that both count from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// In an environment variable.
    Environment {
        /// The variable.
        name: String,
    },
    /// In a `--set` on the command line.
    Flag,
    /// Nowhere: it is missing, or the default.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line, column } => {
                write!(f, "{}:{line}:{column}: ", path.display())
            }
            Origin::Environment { name } => write!(f, "environment variable {name}: "),
            Origin::Flag => f.write_str("--set: "),
            Origin::Nowhere => Ok(()),
        }
    }
}

/// One mistake: where, which key, what stands there, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where the value was given.
    pub origin: Origin,
    /// The key's full name; empty where the file is not TOML.
    pub key: String,
    /// What stands there, as far as it may be shown.
    pub found: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)?;
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(found) = &self.found {
                write!(f, " = {found}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// There are mistakes in it; each is in the text, one a line.
    #[error("{}", Lines(.0))]
    Mistakes(Vec<Mistake>),
}

/// Mistakes, one a line, under a heading.
struct Lines<'a>(&'a [Mistake]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [_] => f.write_str("one mistake in the configuration")?,
            all => write!(f, "{} mistakes in the configuration", all.len())?,
        }
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}
