//! What the server's own planner expects of relations: `EXPLAIN (FORMAT JSON)`, which knows
//! histograms, frequent values and extended statistics, and runs nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use synoptic_source::{Relation, Result};
use tokio_postgres::SimpleQueryMessage;

use crate::sql::{POSTGRES, render_relation};

use super::pool::Pool;
use super::relation::PgTables;

/// Planning takes locks on the tables, so it waits behind an `ALTER TABLE`; this long at most.
fn limits(within: Duration) -> String {
    let millis = within.as_millis().max(1);
    format!(
        "SELECT pg_catalog.set_config('lock_timeout', '{millis}', true), \
         pg_catalog.set_config('statement_timeout', '{millis}', true)"
    )
}

/// How many rows the server expects of each relation, all asked in one round trip; `None` of one
/// that cannot be written as SQL.
///
/// # Errors
/// What the server says, one that it took too long among it.
pub(super) async fn expected_rows(
    pool: &Arc<Pool>,
    relations: &[Arc<Relation>],
    within: Duration,
) -> Result<Vec<Option<f64>>> {
    let selects = relations.iter().map(|r| render_relation(r, &PgTables, &POSTGRES).ok());
    let selects: Vec<Option<String>> = selects.map(|r| r.map(|rendered| rendered.sql)).collect();
    // One message is one transaction, which the limits end with.
    let mut sql = limits(within);
    for select in selects.iter().flatten() {
        sql.push_str("; EXPLAIN (FORMAT JSON) ");
        sql.push_str(select);
    }
    let messages = pool.simple_query(|_| sql.clone()).await?;
    let plans = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.len() == 1 => row.get(0),
        _ => None,
    });
    let mut plans = plans.map(plan_rows);
    Ok(selects.iter().map(|select| select.as_ref().and_then(|_| plans.next().flatten())).collect())
}

#[derive(Deserialize)]
struct Explained {
    #[serde(rename = "Plan")]
    plan: Plan,
}

#[derive(Deserialize)]
struct Plan {
    #[serde(rename = "Plan Rows")]
    rows: f64,
}

fn plan_rows(json: &str) -> Option<f64> {
    let explained: Vec<Explained> = serde_json::from_str(json).ok()?;
    explained.first().map(|explained| explained.plan.rows).filter(|rows| rows.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_topmost_node() {
        let json = r#"[{"Plan": {"Node Type": "Limit", "Plan Rows": 10, "Plan Width": 4,
            "Plans": [{"Node Type": "Seq Scan", "Plan Rows": 5000}]}, "Settings": {}}]"#;
        assert_eq!(plan_rows(json), Some(10.0));
        for other in ["", "[]", "[{}]", "{\"Plan\": 1}"] {
            assert_eq!(plan_rows(other), None, "{other}");
        }
    }

    #[test]
    fn there_is_always_a_limit() {
        assert!(limits(Duration::ZERO).contains("'lock_timeout', '1'"));
        assert!(limits(Duration::from_millis(20)).contains("'statement_timeout', '20'"));
    }
}
