//! The fuzz corpora on stable: every entry, and seeded mutations of them, through the checks of
//! `fuzz/checks.rs`. `WALCAST_SEED` sets the seed, which is printed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "whoever reads of a failure needs the seed")]

use std::fs;
use std::path::Path;
use std::time::SystemTime;

#[path = "../fuzz/checks.rs"]
mod checks;

/// How many mutations of a corpus are tried: a second or so without optimisation.
const MUTATIONS: usize = 10_000;
/// A corpus with fewer entries has been lost.
const ENTRIES_MIN: usize = 10;

#[test]
fn messages_of_the_stream() {
    let understood = |payload: &Vec<u8>| walcast::ingest::pgoutput::decode(payload).is_ok();
    let corpus = corpus("pgoutput");
    assert!(corpus.iter().filter(|entry| understood(entry)).count() >= ENTRIES_MIN);
    replay(&corpus, checks::pgoutput);
}

#[test]
fn rules() {
    let corpus = corpus("rule");
    let read = |entry: &Vec<u8>| {
        let text = String::from_utf8_lossy(entry);
        walcast::rule::parse_where(&text).is_ok() || walcast::rule::parse_filter(&text).is_ok()
    };
    assert!(corpus.iter().filter(|entry| read(entry)).count() >= ENTRIES_MIN);
    replay(&corpus, |bytes| checks::rule(&String::from_utf8_lossy(bytes)));
}

#[test]
fn stored_policies() {
    replay(&corpus("policy"), |bytes| checks::policy(&String::from_utf8_lossy(bytes)));
}

#[test]
fn requests() {
    replay(&corpus("request"), |bytes| checks::request(&String::from_utf8_lossy(bytes)));
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= ENTRIES_MIN, "the corpus of {target} has {} entries", files.len());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn replay(corpus: &[Vec<u8>], check: impl Fn(&[u8])) {
    for entry in corpus {
        check(entry);
    }
    let mut dice = Dice::seeded();
    for _ in 0..MUTATIONS {
        let mut bytes = dice.one_of(corpus).clone();
        for _ in 0..=dice.below(3) {
            dice.mutate(&mut bytes, corpus);
        }
        check(&bytes);
    }
}

/// Pseudo-random numbers (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn seeded() -> Dice {
        let since_1970 = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = std::env::var_os("WALCAST_SEED")
            .map_or_else(|| since_1970().as_secs(), |seed| seed.to_str().unwrap().parse().unwrap());
        println!("WALCAST_SEED={seed}");
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % bound.max(1)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        all.get(self.below(all.len())).unwrap()
    }

    /// A range of a text of that length, mostly short.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let begin = self.below(length + 1);
        let end = begin + self.below((length - begin + 1).min(16));
        begin..end
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let range = self.range(bytes.len());
        match self.below(5) {
            0 => drop(bytes.drain(range)),
            1 => {
                let again = bytes.get(range.clone()).unwrap().to_vec();
                let _nothing_removed = bytes.splice(range.end..range.end, again);
            }
            2 => {
                let other = self.one_of(corpus);
                let part = other.get(self.range(other.len())).unwrap().to_vec();
                let _replaced = bytes.splice(range, part);
            }
            3 => bytes.insert(range.start, *self.one_of(b"\0\xff'\"()[]{},.:\\ =<>-0aZ\x80")),
            _ => {
                let bit = 1 << self.below(8);
                if let Some(byte) = bytes.get_mut(range.start) {
                    *byte ^= bit;
                }
            }
        }
    }
}
