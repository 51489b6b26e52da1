//! A difference with as few clauses, columns and rows as show it.

use super::Case;
use super::bank::{Bank, Place};
use super::verdict::{Difference, Verdict};
use super::world::World;

/// Queries asked to make one smaller.
const TRIES: usize = 600;
/// Sets of tables made to make one smaller.
const WORLDS: usize = 60;

/// The smallest case found that still differs in the same way, and its tables.
pub async fn shrink(case: Case, world: &World, bank: &Bank, same: &Difference) -> (Case, World) {
    let mut case = smaller_query(case, bank, same).await;
    let mut smallest = world.without(0, 0..0);
    let mut worlds = 0;
    for at in 0..3 {
        if !case.query.sql().contains(&format!("{{t{at}}}")) {
            let all = smallest.tables[at].rows.len();
            smallest = smallest.without(at, 0..all);
        }
        let mut step = smallest.tables[at].rows.len().div_ceil(2);
        while step > 0 && worlds < WORLDS {
            let mut from = 0;
            while from < smallest.tables[at].rows.len() && worlds < WORLDS {
                let tried = smallest.without(at, from..from + step);
                worlds += 1;
                let bank = Bank::open(&tried).await;
                let verdict = case.verdict(&bank).await;
                bank.close().await;
                if is(&verdict, same) {
                    smallest = tried;
                } else {
                    from += step;
                }
            }
            step /= 2;
        }
    }
    let bank = Bank::open(&smallest).await;
    case = smaller_query(case, &bank, same).await;
    bank.close().await;
    (case, smallest)
}

async fn smaller_query(mut case: Case, bank: &Bank, same: &Difference) -> Case {
    let mut tries = 0;
    if case.places != [Place::Postgres; 3] {
        let here = Case { places: [Place::Postgres; 3], ..case.clone() };
        if is(&here.verdict(bank).await, same) {
            case = here;
        }
    }
    'again: loop {
        for query in case.query.smaller() {
            if tries == TRIES {
                return case;
            }
            tries += 1;
            let tried = Case { query, places: case.places };
            if is(&tried.verdict(bank).await, same) {
                case = tried;
                continue 'again;
            }
        }
        return case;
    }
}

fn is(verdict: &Verdict, same: &Difference) -> bool {
    matches!(verdict, Verdict::Different(difference) if difference == same)
}
