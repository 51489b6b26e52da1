//! The whole protocol in a virtual world, seed by seed.
//!
//! `SYNOPTIC_SIMULATION_SEED=n cargo test simulation` replays one seed; `SYNOPTIC_SIMULATION_SEEDS`
//! changes how many are run.

mod commits;
mod mutants;
mod run;
mod world;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mutants::Mutant;
use run::{Tally, run};

const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs `seeds` seeds on all cores; the first failing seed with its message, or what happened.
fn seeds(seeds: u64, mutant: Option<Mutant>) -> Result<Tally, (u64, String)> {
    if let Some(seed) = number("SYNOPTIC_SIMULATION_SEED") {
        return run(seed, mutant).map_err(|error| (seed, error));
    }
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let worker = || {
        let (mut tally, mut failure) = (Tally::default(), None);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || seed > failed.load(Ordering::Relaxed) {
                return (tally, failure);
            }
            match run(seed, mutant) {
                Ok(done) => tally.add(&done),
                Err(error) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                    failure = Some((seed, error));
                }
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a seed panicked")).collect()
    });
    let mut tally = Tally::default();
    results.iter().for_each(|(part, _)| tally.add(part));
    match results.into_iter().filter_map(|(_, failure)| failure).min_by_key(|(seed, _)| *seed) {
        Some(failure) => Err(failure),
        None => Ok(tally),
    }
}

#[test]
fn no_receipt_claims_more_than_the_truth() {
    let count = number("SYNOPTIC_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let tally = seeds(count, None).unwrap_or_else(|(seed, error)| {
        panic!("SYNOPTIC_SIMULATION_SEED={seed} fails: {error}");
    });
    println!("{count} seeds: {tally:?}");
    if number("SYNOPTIC_SIMULATION_SEED").is_some() {
        return;
    }
    let per_seed = |what: u64, percent: u64, name: &str| {
        assert!(what * 100 >= count * percent, "{what} × {name} in {count} seeds is too few");
    };
    per_seed(tally.strong, 100, "strong reads");
    per_seed(tally.fenced, 20, "reads behind a fence");
    per_seed(tally.positioned, 100, "reads of replicas by position");
    per_seed(tally.kept, 20, "reads of what was kept");
    per_seed(tally.unproved, 5, "stale reads");
    per_seed(tally.tokens_used, 100, "reads with a token");
    per_seed(tally.tokens_lost, 5, "lost tokens");
    per_seed(tally.refused, 5, "refusals");
    per_seed(tally.skewed, 1, "answers refused for their skew");
    per_seed(tally.again, 20, "second choices");
    per_seed(tally.commits, 100, "commit waits");
}

#[test]
fn every_broken_rule_is_caught() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        match seeds(SEEDS, Some(*mutant)) {
            Err((seed, error)) => {
                let what: String = error.chars().take(110).collect();
                println!("{mutant:?}: seed {seed}: {what}");
            }
            Ok(_) => missed.push(*mutant),
        }
    }
    assert!(missed.is_empty(), "not caught in {SEEDS} seeds: {missed:?}");
    assert!(Mutant::ALL.len() >= 12);
}
