//! What kind of private server to start.

use std::path::Path;
use std::path::PathBuf;

/// What kind of server to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of `initdb` and `postgres`; absent: the newest packaged ones, else those in `PATH`.
    pub binaries: Option<PathBuf>,
    /// The name of the superuser that the server is initialised with.
    pub superuser: String,
    /// `--locale` of `initdb`: the collation of the databases, too. The encoding is always UTF-8.
    pub locale: String,
    /// Where clients reach it.
    pub listen: Listen,
    /// Settings, as in `postgresql.conf`; the last one of a name counts.
    pub parameters: Vec<(String, String)>,
    /// A folder in which initialised data folders are kept and copied from, because `initdb` takes
    /// a second and a copy takes a tenth. Servers made from one template have the **same system
    /// identifier**. Absent: `initdb` each time.
    pub templates: Option<PathBuf>,
    /// What becomes of the server's folder in the end.
    pub afterwards: Afterwards,
}

/// Where clients reach a server; the unix socket is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// By the unix socket only.
    Socket,
    /// Also by TCP, at 127.0.0.1 and a free port, which stays the same over restarts.
    Loopback,
}

/// What becomes of a server's folder when its process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It is removed.
    Remove,
    /// It stays, data, log and all; the server is stopped nevertheless.
    Keep,
}

impl Default for Options {
    /// A durable server, ready for logical decoding, that is initialised anew and leaves nothing.
    fn default() -> Options {
        let options = Options {
            binaries: None,
            superuser: "postgres".to_owned(),
            locale: "C.UTF-8".to_owned(),
            listen: Listen::Loopback,
            parameters: Vec::new(),
            templates: None,
            afterwards: Afterwards::Remove,
        };
        options
            .parameter("wal_level", "logical")
            .parameter("max_wal_senders", "20")
            .parameter("max_replication_slots", "20")
    }
}

impl Options {
    /// What a test wants: no `fsync`, little memory, initialised by copying from `templates`.
    #[must_use]
    pub fn for_tests(templates: &Path) -> Options {
        let options = Options { templates: Some(templates.to_owned()), ..Options::default() };
        options
            .parameter("fsync", "off")
            .parameter("full_page_writes", "off")
            .parameter("shared_buffers", "32MB")
            .parameter("max_connections", "200")
            .parameter("log_min_messages", "warning")
    }

    /// The same with one more setting.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: &str) -> Options {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }
}
