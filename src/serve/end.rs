//! How a session ends: the close codes and reasons that clients see, on every transport.

use crate::route::session::Close;

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

/// What a client is told whose session the shard wants closed.
pub(crate) const fn goodbye(close: Close) -> End {
    match close {
        Close::Expired => End { code: 4401, reason: "token_expired" },
        Close::Unauthenticated => End { code: 4401, reason: "token_required" },
        Close::Silent => End { code: 1001, reason: "silent" },
        Close::Restart => End { code: 1012, reason: "restart" },
        Close::Killed => End { code: 4410, reason: "killed" },
    }
}
