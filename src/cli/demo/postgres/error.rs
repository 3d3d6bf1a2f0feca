//! Why a private server could not be had, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why there is no such server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There are no server programs on this machine.
    #[error(
        "no Postgres server programs found (looked for initdb and postgres in \
         /usr/lib/postgresql/*/bin and in PATH); install the package postgresql, or name their \
         folder in WALCAST_PG_BIN"
    )]
    NotInstalled,

    /// The folder that was named does not hold them.
    #[error("{} holds no initdb and postgres", folder.display())]
    NotThere {
        /// The folder.
        folder: PathBuf,
    },

    /// This process is root, which may not run Postgres, and the usual other user is missing.
    #[error(
        "this process is root, and Postgres must not be, but there is no user `postgres` to run \
         it as; install the package postgresql, or start this as another user"
    )]
    NoUser,

    /// The operating system refused something.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },

    /// A program ended badly.
    #[error("{program} ended with {status}:\n{output}")]
    Program {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
    },

    /// The server did not become ready, or did not end, in time.
    #[error("the server was not {state} after {seconds} s:\n{log}")]
    Late {
        /// What it should have become: ready, or gone.
        state: &'static str,
        /// How long it was given.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
}
