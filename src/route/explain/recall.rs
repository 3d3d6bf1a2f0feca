//! A change that the ring still holds, explained by what was the case then.

use crate::change::transaction::Change;
use crate::replica::Moment;
use crate::route::explain::Explanation;
use crate::route::explain::Lookup;
use crate::route::explain::LookupError;
use crate::route::explain::Subject;
use crate::route::explain::explain_among;
use crate::route::image::Moments;
use crate::route::shard::Shard;
use crate::route::subscription::Request;

impl Shard {
    /// Explains a change that the ring holds.
    ///
    /// # Errors
    ///
    /// [`LookupError`] where it does not.
    pub fn explain(&self, lookup: &Lookup) -> Result<Explanation, LookupError> {
        let ring = self.ring.as_ref().ok_or(LookupError::NoRing)?;
        let place = ring.place_after(lookup.cursor)?;
        // The last change of a part is followed by the next part.
        let before = match place.change.checked_sub(1) {
            Some(change) => Some((place.transaction, change)),
            None => place
                .transaction
                .checked_sub(1)
                .and_then(|number| Some((number, ring.get(number)?.len().checked_sub(1)?))),
        };
        let position = lookup.cursor.position;
        let found = before.and_then(|(number, at)| {
            let transaction = ring.get(number).filter(|it| it.commit_lsn == position.lsn)?;
            let change = transaction.changes_from(at).next()?;
            (change.index.saturating_add(1) == position.index).then_some(change)
        });
        let at = |moment| self.shared.replicas.view(position.lsn, moment);
        let (before, after) = (at(Moment::Before), at(Moment::After));
        let others = Moments { before: &before, after: &after };
        let Change { relation, kind, .. } = found.ok_or(LookupError::NoChange)?;
        let catalog = self.shared.catalog.current();
        let context = self.shared.context(&catalog);
        let request = Request::whole(&relation.schema, &relation.name, lookup.filter.clone());
        let subject = (Subject::Change(&kind), others);
        Ok(explain_among(context, &lookup.claims, &request, relation, subject))
    }
}
