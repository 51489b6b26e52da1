//! Random queries over random tables with hostile values: the same answers with pushdown (all that
//! can go, and what the cost lets go), with `pushdown = 'none'`, and from plain DataFusion over the
//! same rows in memory; with one partition and several, with dynamic filters and without; the
//! tables in PostgreSQL, SQLite, Parquet files, or some here and some there.
//!
//! * `SYNOPTIC_FUZZ_CASES`: how many queries are asked (300).
//! * `SYNOPTIC_FUZZ_SEED`: the first seed (1). Every seed is one set of tables with [`QUERIES`]
//!   queries; a failure names its seed, and `SYNOPTIC_FUZZ_CASES=1` with that seed asks it again.
//! * `SYNOPTIC_FUZZ_QUERY`: only the query of that number under the seed.
//! * `SYNOPTIC_FUZZ_ALL`: goes on after differences and reports each.
//!
//! A difference is made smaller (clauses, columns, rows) before it is shown. Once put right it goes
//! to a `tests/slt/fuzz_*.slt`.

mod bank;
mod expr;
mod generate;
mod query;
mod rng;
mod shrink;
mod verdict;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use bank::{Bank, Place};
use generate::Generator;
use query::Query;
use rng::Rng;
use verdict::{Difference, Verdict, has_other_floats, judge};
use world::World;

/// Queries over one set of tables: making the tables costs as much as about ten.
const QUERIES: u64 = 50;

/// How many differences are shown before the run stops, unless all are wanted.
const SHOWN: usize = 3;

/// A query and where its tables are.
#[derive(Debug, Clone)]
struct Case {
    query: Query,
    places: [Place; 3],
}

impl Case {
    fn random(seed: u64, number: u64, world: &World) -> Self {
        // 0 is the world's own.
        let rng = &mut Rng::new(seed, number + 1);
        let one = match rng.below(100) {
            0..35 => Some(Place::Postgres),
            35..47 if world.sqlite => Some(Place::Sqlite),
            47..54 => Some(Place::Files),
            // Only between sources do keys go into what one of them runs as a whole.
            _ => None,
        };
        let mut any = || match rng.below(3) {
            0 if world.sqlite => Place::Sqlite,
            1 => Place::Files,
            _ => Place::Postgres,
        };
        let places = one.map_or_else(|| [any(), any(), any()], |place| [place; 3]);
        Self { query: Generator::new(rng, world).query(2), places }
    }

    async fn verdict(&self, bank: &Bank) -> Verdict {
        let sql = self.query.sql();
        let answers = bank.answers(&sql, self.places).await;
        match judge(&answers, self.query.is_ordered()) {
            Verdict::Different(Difference::Rows("plain"))
                if takes_extreme_of_floats(&sql) || has_other_floats(&answers) =>
            {
                Verdict::OtherFloats
            }
            verdict => verdict,
        }
    }
}

#[derive(Default)]
struct Tally {
    asked: AtomicU64,
    rows: AtomicU64,
    empty: AtomicU64,
    errors: AtomicU64,
    /// A plan computed what does not fit, of rows that another one never came to.
    evaluated: AtomicU64,
    /// Plain DataFusion orders floating-point numbers in another way.
    known: AtomicU64,
    found: Mutex<Vec<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_have_one_answer() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let seed = number("SYNOPTIC_FUZZ_SEED").unwrap_or(1);
    let cases = number("SYNOPTIC_FUZZ_CASES").unwrap_or(300);
    let only = number("SYNOPTIC_FUZZ_QUERY");
    let all = std::env::var_os("SYNOPTIC_FUZZ_ALL").is_some();
    let tally = Arc::new(Tally::default());
    let next = Arc::new(AtomicU64::new(seed));
    let last = seed + cases.div_ceil(QUERIES);
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (tally, next) = (Arc::clone(&tally), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = !all && tally.found.lock().len() >= SHOWN;
                    if seed >= last || enough {
                        return;
                    }
                    ask_seed(seed, only, &tally).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (asked, rows, empty, errors) =
        (of(&tally.asked), of(&tally.rows), of(&tally.empty), of(&tally.errors));
    eprintln!(
        "{asked} queries: {rows} with rows, {empty} without, {errors} with the same error, {} where \
         plain DataFusion orders floats in another way, {} where some plans only compute \
         what does not fit",
        of(&tally.known),
        of(&tally.evaluated)
    );
    let found = tally.found.lock();
    assert!(found.is_empty(), "{} differ:\n\n{}", found.len(), found.join("\n\n"));
    assert!(of(&tally.evaluated) * 50 <= asked.max(50), "too many errors depend on the plan");
    // A generator that writes nonsense would find agreement everywhere.
    assert!(only.is_some() || rows * 3 > asked, "only {rows} of {asked} queries have rows");
}

async fn ask_seed(seed: u64, only: Option<u64>, tally: &Tally) {
    let world = World::random(&mut Rng::new(seed, 0));
    let bank = Bank::open(&world).await;
    for number in only.map_or(0..QUERIES, |only| only..only + 1) {
        let case = Case::random(seed, number, &world);
        tally.asked.fetch_add(1, Ordering::Relaxed);
        let difference = match case.verdict(&bank).await {
            Verdict::Rows => {
                tally.rows.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Verdict::Empty => {
                tally.empty.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Verdict::Error(text) => {
                tally.errors.fetch_add(1, Ordering::Relaxed);
                if std::env::var_os("SYNOPTIC_FUZZ_ERRORS").is_some() {
                    eprintln!("error: {text}");
                }
                continue;
            }
            Verdict::EvaluatedMore => {
                tally.evaluated.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Verdict::OtherFloats => {
                tally.known.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Verdict::Different(difference) => difference,
        };
        let before = case.query.sql();
        let (case, smaller) = shrink::shrink(case, &world, &bank, &difference).await;
        let small = Bank::open(&smaller).await;
        let sql = case.query.sql();
        let answers = small.answers(&sql, case.places).await;
        let plan = small.explain(&sql, case.places).await;
        small.close().await;
        let mut text = format!(
            "SYNOPTIC_FUZZ_SEED={seed} SYNOPTIC_FUZZ_CASES=1 SYNOPTIC_FUZZ_QUERY={number}: \
             {difference:?}\n{before}\n{}query T\n{sql}\n-- in {:?}\n",
            smaller.tsv(),
            case.places
        );
        for (name, answer) in answers {
            text += &format!("---- {name}\n{answer:?}\n");
        }
        text += &plan;
        eprintln!("{text}\n");
        tally.found.lock().push(text);
    }
    bank.close().await;
}

/// Whether `min` or `max` of a floating-point column is asked for, whose groups begin with the largest
/// finite number in plain DataFusion: infinity is lost. What it answers to these is nothing to compare
/// with; that our own ways agree is still looked at.
fn takes_extreme_of_floats(sql: &str) -> bool {
    ["min(", "max("].iter().flat_map(|call| sql.match_indices(call)).any(|(at, call)| {
        let inside = &sql[at + call.len()..];
        let mut depth = 1;
        let end = inside.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        let argument = &inside[..end.unwrap_or(inside.len())];
        [".f", ".q", ".r"].iter().any(|column| {
            argument.match_indices(column).any(|(at, _)| {
                let next = argument[at + column.len()..].chars().next();
                next.is_none_or(|c| !c.is_alphanumeric())
            })
        })
    })
}
