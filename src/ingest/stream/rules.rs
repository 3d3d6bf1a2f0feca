//! What the catalogue is asked for before the stream goes on: what a table's columns are, and by which
//! rules its changes are judged. The transaction that it concerns waits meanwhile, and all after it;
//! the server still hears from us.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::change::relation::RelationDescription;
use crate::ingest::error::IngestError;
use crate::ingest::run::Ingest;
use crate::ingest::stream::Flow;
use crate::ingest::stream::Stream;

impl Stream {
    /// Asks for a table's types, and for the rules by which its changes are judged from here on;
    /// absent when stopped.
    pub(super) async fn resolve(
        &mut self,
        ingest: &mut Ingest,
        description: &RelationDescription,
        stop: &CancellationToken,
    ) -> Result<Option<Arc<Relation>>, IngestError> {
        let catalog = Arc::clone(&ingest.catalog);
        let commit_lsn = self.assembler.commit_lsn().unwrap_or(Lsn::ZERO);
        let announced = Box::pin(catalog.announced(description, commit_lsn));
        let Some(announced) = self.ask(ingest, stop, announced).await? else { return Ok(None) };
        let (relation, looked) = announced.map_err(|source| IngestError::Resolve {
            relation: format!("{}.{}", description.schema, description.name),
            source,
        })?;
        ingest.count_fence(looked);
        // What policies read may be others, too, or have other rows: whoever has read it last.
        ingest.replicas.keep_up();
        Ok(Some(relation))
    }

    /// Reads the rules again by which the open transaction is judged.
    pub(super) async fn reread(
        &mut self,
        ingest: &mut Ingest,
        stop: &CancellationToken,
    ) -> Result<Flow, IngestError> {
        let Some(commit_lsn) = self.assembler.commit_lsn() else { return Ok(Flow::GoesOn) };
        let catalog = Arc::clone(&ingest.catalog);
        let settled = self.ask(ingest, stop, Box::pin(catalog.settle(commit_lsn))).await?;
        let Some(settled) = settled else { return Ok(Flow::Stopped) };
        let looked = settled.map_err(|source| IngestError::Rules { source })?;
        ingest.count_fence(looked);
        ingest.replicas.keep_up();
        Ok(Flow::GoesOn)
    }

    /// Waits for an answer while the server still hears from us; absent when stopped.
    async fn ask<T>(
        &mut self,
        ingest: &mut Ingest,
        stop: &CancellationToken,
        asking: impl Future<Output = T>,
    ) -> Result<Option<T>, IngestError> {
        let mut asking = pin!(asking);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                answer = asking.as_mut() => return Ok(Some(answer)),
                () = sleep_until(self.beat_at) => self.beat(ingest),
                () = sleep_until(self.wake_at(ingest)) => self.tell(ingest).await?,
            }
        }
    }
}
