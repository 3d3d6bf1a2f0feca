//! Taking from the memo what need not be asked, and giving to it what was answered.

use std::sync::Arc;

use crate::ask::verdict::Image;
use crate::ask::verdict::Ruling;
use crate::ask::verdict::Word;
use crate::change::id::RelationId;
use crate::route::asked::batch::Batch;
use crate::route::asked::memo::Terms;
use crate::route::asked::round::Round;
use crate::route::asked::round::Want;
use crate::route::shard::Shard;

impl Shard {
    /// Takes from what is wanted what is known; tells the catalogue's generation as of which it is, where
    /// the rest is to be remembered.
    pub(super) fn recall(
        &mut self,
        batch: &Batch,
        watched: &Arc<[RelationId]>,
        wants: &mut [Want],
    ) -> Option<u64> {
        let generation = self.shared.catalog.current().generation;
        let terms = self.terms(generation);
        let (memo, ring) = (&mut self.policing.memo, self.ring.as_ref()?);
        if !memo.follow(terms, (batch.matter, watched), ring) {
            return None;
        }
        let holds = memo.holds_for(batch, ring);
        let found = memo.look_up(batch, &holds);
        let (mut hits, mut misses, mut stale) = (0, 0, Vec::new());
        for want in wants {
            let needs: Vec<usize> = want.needs.iter().collect();
            let words = found.words(&want.name, &needs);
            hits += words.len();
            misses += needs.len() - words.len();
            for (at, ..) in &words {
                want.needs.remove(*at);
            }
            let old: Vec<(usize, Word)> =
                words.iter().filter(|it| it.2).map(|(at, word, _)| (*at, *word)).collect();
            if !old.is_empty() {
                stale.push((Arc::clone(&want.name), old));
            }
            want.known = words.into_iter().map(|(at, word, _)| (at, word)).collect();
        }
        for (name, words) in stale {
            let image = |(at, word): (usize, Word)| Some((batch.images.get(at)?, word));
            memo.keep(batch.matter, &name, words.into_iter().filter_map(image));
        }
        let gone = memo.make_room();
        let meter = &self.shared.metrics.verdicts;
        meter.memo_hits.add(count(hits));
        meter.memo_misses.add(count(misses));
        meter.memo_evictions.add(count(gone));
        Some(generation)
    }

    /// Remembers an answer that saw every transaction before `unseen`. The stream has come to where the
    /// log ended when it was given, or it does not matter.
    pub(super) fn learn(&mut self, round: &Round, ruling: &Ruling, unseen: u64) {
        let generation = self.shared.catalog.current().generation;
        if round.memorable != Some(generation) {
            return;
        }
        let (matter, terms) = (round.batch.matter, self.terms(generation));
        let policing = &mut self.policing;
        let same = policing.matters.get(matter).is_some_and(|it| Arc::ptr_eq(&it.0, &round.matter));
        let Some(ring) = self.ring.as_ref().filter(|_| same) else { return };
        if !policing.memo.follow(terms, (matter, &round.watched), ring) {
            return;
        }
        let images = &round.batch.images;
        let mut gone = 0;
        for (about, words) in round.cases.iter().zip(&ruling.words) {
            let Ok(words) = words else { continue };
            let all = 0..images.len();
            let asked: Vec<&Image> = match &about.images {
                Some(some) => some.iter().filter_map(|at| images.get(*at)).collect(),
                None => all.filter_map(|at| images.get(at)).collect(),
            };
            let words = asked.into_iter().zip(words.iter().copied());
            policing.memo.learn(matter, unseen, &about.name, words);
            gone += policing.memo.make_room();
        }
        self.shared.metrics.verdicts.memo_evictions.add(count(gone));
    }

    const fn terms(&self, generation: u64) -> Terms {
        Terms { bytes_max: self.settings.memo_bytes_max, generation, seconds: self.seconds }
    }
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}
