//! How many files and sockets the process may have, and so how many clients.

use std::num::NonZeroU32;

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

/// Descriptors for everything but clients: connections to Postgres, the operator's listeners and
/// who is connected to them, the runtimes' own, files that are being read.
const RESERVE: u64 = 64;

/// Raises the limit as far as the system lets us: what a shell gives is far below it, for the sake
/// of programs that use `select`. Returns how many there may be; none where nothing bounds them.
fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            return limit.maximum;
        }
    }
    limit.current
}

/// How many connections there may be where the settings leave it to us.
pub(super) fn connections() -> Option<NonZeroU32> {
    let clients = raise()?.saturating_sub(RESERVE).max(1);
    tracing::debug!(clients, "the file descriptors allow so many clients");
    NonZeroU32::new(u32::try_from(clients).unwrap_or(u32::MAX))
}
