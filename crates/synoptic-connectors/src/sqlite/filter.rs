//! Which filters SQLite applies.

use std::collections::BTreeSet;

use arrow::datatypes::Schema;
use chrono::{Days, NaiveDate};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Operator};
use synoptic_source::Pushdown;
use synoptic_types::Reason;

use super::discover::Detail;
use super::types::Kind;
use crate::sql::{self, Columns as _, Dialect as _, SQLITE};

/// A filter in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rendered {
    /// Keeps exactly the rows the engine would keep.
    Exact(String),
    /// Keeps those and some more.
    Inexact(String, Reason),
}

/// Renders `filter`, or says why it stays in the engine.
pub(super) fn render(filter: &Expr, schema: &Schema, detail: &Detail) -> Result<Rendered, Reason> {
    match sql::render_filter(filter, schema, detail, &SQLITE) {
        Ok(sql) => Ok(Rendered::Exact(sql)),
        Err(reason) => match by_date(filter, detail) {
            Some(sql) => Ok(Rendered::Inexact(sql, reason)),
            None => Err(reason),
        },
    }
}

impl Rendered {
    pub fn pushdown(self) -> Pushdown {
        match self {
            Self::Exact(_) => Pushdown::Exact,
            Self::Inexact(_, reason) => Pushdown::Inexact(reason),
        }
    }
}

/// The columns whose values a filter looks at. Whether a value is NULL is no such look: what does
/// not fit is not NULL either way.
pub(super) fn compared_columns(filter: &Expr) -> BTreeSet<&str> {
    let mut columns = BTreeSet::new();
    let walked = filter.apply(|expr| {
        Ok(match expr {
            Expr::IsNull(inner) | Expr::IsNotNull(inner) if matches!(**inner, Expr::Column(_)) => {
                TreeNodeRecursion::Jump
            }
            Expr::Column(column) => {
                columns.insert(column.name.as_str());
                TreeNodeRecursion::Continue
            }
            _ => TreeNodeRecursion::Continue,
        })
    });
    debug_assert!(walked.is_ok(), "the closure never fails");
    columns
}

/// A timestamp may be written in several ways, but always begins with its date. So a comparison
/// with a timestamp can skip whole days, with an index when there is one.
fn by_date(filter: &Expr, detail: &Detail) -> Option<String> {
    match filter {
        Expr::BinaryExpr(binary) => {
            if let (Expr::Column(column), Expr::Literal(..)) = (&*binary.left, &*binary.right) {
                return compare(&column.name, binary.op, &binary.right, detail);
            }
            if let (Expr::Literal(..), Expr::Column(column)) = (&*binary.left, &*binary.right) {
                return compare(&column.name, binary.op.swap()?, &binary.left, detail);
            }
            if binary.op != Operator::And {
                return None;
            }
            // Either half is enough to skip by.
            let halves = [by_date(&binary.left, detail), by_date(&binary.right, detail)];
            let halves: Vec<String> = halves.into_iter().flatten().collect();
            (!halves.is_empty()).then(|| halves.join(" AND "))
        }
        Expr::Between(between) if !between.negated => {
            let Expr::Column(column) = &*between.expr else { return None };
            let low = compare(&column.name, Operator::GtEq, &between.low, detail)?;
            let high = compare(&column.name, Operator::LtEq, &between.high, detail)?;
            Some(format!("{low} AND {high}"))
        }
        _ => None,
    }
}

fn compare(name: &str, op: Operator, literal: &Expr, detail: &Detail) -> Option<String> {
    let column = detail.columns.iter().find(|column| column.name == name)?;
    let facts = detail.facts(name)?;
    // The date as written may be that of another zone.
    let margin = match column.kind {
        Kind::Timestamp => 0,
        Kind::Moment => 1,
        _ => return None,
    };
    let Expr::Literal(value, _) = literal else { return None };
    let date = match (sql::timestamp_date(value)?, column.kind) {
        ((date, false), Kind::Timestamp) | ((date, true), Kind::Moment) => date,
        _ => return None,
    };
    let quoted = SQLITE.quote_identifier(name);
    let sql =
        if facts.collation_is_binary { quoted } else { format!("(+{quoted}) COLLATE BINARY") };
    let text = |date: NaiveDate| format!("'{}'", date.format("%Y-%m-%d"));
    let from = || {
        let first = date.checked_sub_days(Days::new(margin))?;
        Some(format!("{sql} >= {}", text(first)))
    };
    let to = || {
        let after = date.checked_add_days(Days::new(margin + 1))?;
        // Beyond it, years have five digits and sort elsewhere.
        use chrono::Datelike as _;
        (after.year() <= 9999).then(|| format!("{sql} < {}", text(after)))
    };
    match op {
        Operator::Gt | Operator::GtEq => from(),
        Operator::Lt | Operator::LtEq => to(),
        Operator::Eq => Some(format!("{} AND {}", from()?, to()?)),
        _ => None,
    }
}
