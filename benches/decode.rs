//! What it costs to take the stream apart: one Insert, and a transaction of a hundred.

#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

mod common;

use std::sync::Arc;

use divan::Bencher;
use divan::black_box;
use divan::counter::BytesCount;
use divan::counter::ItemsCount;
use walcast::ingest::assemble::Assembler;
use walcast::ingest::assemble::PART_BYTES;
use walcast::ingest::pgoutput::decode;

/// Rows in the transaction.
const ROWS: u32 = 100;

fn main() {
    divan::main();
}

#[divan::bench]
fn insert(bencher: Bencher) {
    let payload = insert_payload(7);
    let bytes = BytesCount::new(payload.len());
    bencher.counter(bytes).bench(|| decode(black_box(&payload)).unwrap());
}

#[divan::bench]
fn transaction_of_100(bencher: Bencher) {
    let payloads = transaction();
    let bytes: usize = payloads.iter().map(Vec::len).sum();
    let mut assembler = Assembler::new(PART_BYTES, None);
    assembler.learn(Arc::new(common::orders()));
    bencher.counter(BytesCount::new(bytes)).counter(ItemsCount::new(ROWS)).bench_local(|| {
        let mut last = None;
        for payload in &payloads {
            last = Some(assembler.push(black_box(payload)).unwrap());
        }
        last
    });
}

/// Begin, the inserts, Commit.
fn transaction() -> Vec<Vec<u8>> {
    let (lsn, end, committed_at, xid) = (0x16_0000_0000_u64, 0x16_0000_1000_u64, 0_u64, 700_u32);
    let begin = [&b"B"[..], &lsn.to_be_bytes(), &committed_at.to_be_bytes(), &xid.to_be_bytes()];
    let flags = [0];
    let (lsn, end, at) = (lsn.to_be_bytes(), end.to_be_bytes(), committed_at.to_be_bytes());
    let commit = [&b"C"[..], &flags, &lsn, &end, &at];
    let mut payloads = vec![begin.concat()];
    payloads.extend((0..ROWS).map(insert_payload));
    payloads.push(commit.concat());
    payloads
}

fn insert_payload(number: u32) -> Vec<u8> {
    [&b"I"[..], &common::ORDERS.0.to_be_bytes(), b"N", &common::tuple(number)].concat()
}
