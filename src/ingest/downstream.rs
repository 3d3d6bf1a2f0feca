//! The way to the shards: each gets everything, in the same order.
//!
//! What is pushed goes out at once where every shard has room, and waits here where one has none.
//! While anything waits, `run` reads no frame: the server keeps the log.

use std::collections::VecDeque;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::ingest::error::IngestError;
use crate::ring::feed::Feed;
use crate::ring::feed::Routed;

/// The shards, and what waits for them.
#[derive(Debug)]
pub struct Downstream {
    feeds: Vec<Sender<Feed>>,
    routed: Vec<Routed>,
    waiting: VecDeque<Feed>,
}

impl Downstream {
    /// The way to the shards behind `feeds`, which tell in `routed` how far they are. Nobody else
    /// may send into the channels.
    #[must_use]
    pub const fn new(feeds: Vec<Sender<Feed>>, routed: Vec<Routed>) -> Downstream {
        Downstream { feeds, routed, waiting: VecDeque::new() }
    }

    /// How many of the transactions pushed every shard has routed; absent without shards.
    pub(crate) fn routed(&self) -> Option<u64> {
        self.routed.iter().map(Routed::get).min()
    }

    /// Whether nothing waits.
    pub(crate) fn is_clear(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends `item` to every shard, now or when there is room.
    pub(crate) fn push(&mut self, item: Feed) -> Result<(), IngestError> {
        self.waiting.push_back(item);
        self.flush()
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn flush(&mut self) -> Result<(), IngestError> {
        while !self.waiting.is_empty() && self.feeds.iter().all(|feed| feed.capacity() > 0) {
            let Some(item) = self.waiting.pop_front() else { return Ok(()) };
            for feed in &self.feeds {
                match feed.try_send(item.clone()) {
                    Ok(()) => {}
                    // Nobody else sends, so the room that was there is there.
                    Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                        return Err(IngestError::ShardGone);
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until every shard has room. Cancel safe.
    pub(crate) async fn room(&self) -> Result<(), IngestError> {
        for feed in &self.feeds {
            // Given back at once. Room that was there stays, because nobody else sends.
            feed.reserve().await.map_err(|_| IngestError::ShardGone)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::lsn::Lsn;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn one_full_shard_holds_everything_back_and_nothing_is_lost() {
        let (wide, mut wide_end) = mpsc::channel(8);
        let (narrow, mut narrow_end) = mpsc::channel(1);
        let mut downstream = Downstream::new(vec![wide, narrow], Vec::new());
        for lsn in 1..=3 {
            downstream.push(Feed::Advance(Lsn::new(lsn))).unwrap();
        }
        assert!(!downstream.is_clear());
        assert_eq!(wide_end.len(), 1);
        for expected in 1..=3 {
            let Some(Feed::Advance(lsn)) = narrow_end.recv().await else { panic!() };
            assert_eq!(lsn, Lsn::new(expected));
            downstream.room().await.unwrap();
            downstream.flush().unwrap();
        }
        assert!(downstream.is_clear());
        assert_eq!(wide_end.len(), 3);
        wide_end.close();
    }

    #[tokio::test]
    async fn a_shard_that_ended_is_noticed() {
        let (feed, end) = mpsc::channel(1);
        let mut downstream = Downstream::new(vec![feed], Vec::new());
        drop(end);
        assert!(matches!(downstream.push(Feed::Live), Err(IngestError::ShardGone)));
        assert!(matches!(downstream.room().await, Err(IngestError::ShardGone)));
    }
}
