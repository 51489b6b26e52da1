//! Rendering a filter as a source's SQL, behind an allow-list per dialect.
//!
//! [`render_filter`] takes a DataFusion expression over the columns of one table and answers with
//! SQL that keeps *exactly* the rows DataFusion would keep, or with the [`Reason`] why the filter
//! stays in the engine. It is an allow-list: what is not known to mean the same at the source,
//! down to NULLs, NaN, collations and overflow, is refused.
//!
//! ```text
//! render_filter      walks the expression                              render.rs
//!   operand          columns, literals, casts, CASE, functions         operand.rs, value.rs
//!   combine          + - * that cannot overflow                        arithmetic.rs
//!   compare          two operands of one class                         compare.rs
//!   like             patterns                                          like.rs
//!   render_relation  a tree of operators: every one a derived table     relation.rs, aggregate.rs
//!   Dialect          what a column and a literal are in the dialect    postgres.rs, sqlite.rs
//! ```
//!
//! What a connector owes in return:
//!
//! * every NaN it delivers is the positive one (`f64::NAN`), so that DataFusion, which orders
//!   floats by their bits, agrees with the source;
//! * a value it cannot deliver (a numeric NaN, an infinite date) is an error when it is read;
//! * text columns under a nondeterministic collation, and columns whose values are converted on
//!   the way, have no facts: they are compared here.

mod aggregate;
mod arithmetic;
mod compare;
mod like;
mod literal;
mod operand;
mod postgres;
mod relation;
mod render;
mod sqlite;
mod value;

#[cfg(test)]
mod equivalence;
#[cfg(test)]
mod tests;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use synoptic_types::Reason;

pub(crate) use postgres::POSTGRES;
pub(crate) use relation::{Rendered, Selected, Tables, render_relation};
pub(crate) use sqlite::SQLITE;

use like::Pattern;
use value::{Class, Operand};

/// What a source's own catalog says of a column, as far as meaning depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnFacts {
    /// PostgreSQL: the type's name with or without its modifier, as `typname` or as
    /// `format_type` spells it, a domain's base type for a domain. SQLite: the declared type.
    pub native_type: String,
    /// Text sorts by its bytes: collation `C` or `POSIX` (also as the database's default), or
    /// `ucs_basic`; in SQLite an ordinary table's `BINARY`. Otherwise the collation is
    /// deterministic: columns under any other have no facts.
    pub collation_is_binary: bool,
    /// The type pads with blanks and ignores them when it compares: `char(n)`.
    pub padded_char: bool,
}

/// The columns of one table, by their exact names.
pub(crate) trait Columns {
    /// The facts of `column`; `None` when its values cannot be compared at the source. It can
    /// still be tested for NULL there.
    fn facts(&self, column: &str) -> Option<ColumnFacts>;

    /// What is tested for NULL instead of the column itself, where the two differ.
    fn null_operand(&self, column: &str) -> Option<String> {
        let _ = column;
        None
    }

    /// The name for an error, when `column` may have values that cannot be delivered and have not
    /// been looked at yet.
    fn unchecked(&self, column: &str) -> Option<&str> {
        let _ = column;
        None
    }
}

/// What differs between the SQL of sources. See `postgres.rs` and `sqlite.rs`.
pub(crate) trait Dialect: Send + Sync {
    /// The functions a rendered filter may call, by DataFusion's names.
    fn functions(&self) -> &'static [&'static str];

    /// A name as an identifier.
    fn quote_identifier(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    /// A column as an operand.
    fn column(
        &self,
        name: &str,
        data_type: &DataType,
        facts: &ColumnFacts,
    ) -> Result<Operand, Reason>;

    /// A literal as an operand.
    fn literal(&self, value: &ScalarValue) -> Result<Operand, Reason>;

    /// `operand` converted to the type `to`, which is of `class`, or why that would not be exact.
    fn cast(&self, operand: Operand, to: &DataType, class: Class) -> Result<Operand, Reason>;

    /// `operand`, of a class that agrees with the type `to`, as the value of a column of that type
    /// that is stored as it is or fails.
    fn assigned(&self, operand: &Operand, to: &DataType) -> Result<String, Reason> {
        let _ = to;
        Ok(operand.sql.clone())
    }

    /// `=`, `<` and the like, after the classes were found to agree: the last word on whether the
    /// dialect compares the two exactly, and how.
    fn comparable(
        &self,
        left: Operand,
        right: Operand,
        ordering: bool,
    ) -> Result<(Operand, Operand), Reason>;

    /// What stands after `subject` instead of `IN (…)`, for literals that were found comparable with
    /// it: a form that the source reads faster when there are many.
    fn long_list(&self, subject: &Operand, items: &[Operand]) -> Option<String> {
        let _ = (subject, items);
        None
    }

    /// Whether `+`, `-` and `*` are rendered where they cannot overflow.
    fn arithmetic(&self) -> bool;

    /// The type that a computed column of this type is cast to, when its values come back exactly;
    /// `None` for types that are not computed at the source.
    fn native_type(&self, data_type: &DataType) -> Option<String> {
        let _ = data_type;
        None
    }

    /// `operand`, failing for a value that cannot be delivered; `label` names its column.
    fn checked(&self, operand: Operand, label: &str) -> Result<Operand, Reason> {
        let _ = operand;
        Err(Reason::DifferentMeaning(format!("column {label} is checked when it is read")))
    }

    /// The select list of rows without columns.
    fn no_columns(&self) -> &'static str {
        ""
    }

    /// Whether the dialect computes an aggregate of values of `class`, once the function is one
    /// that some dialect computes as the engine does.
    fn aggregates(&self, function: &str, class: Class) -> Result<(), Reason> {
        let _ = (function, class);
        Ok(())
    }

    /// Whether rows are found by `key` without looking at each pair of rows.
    fn joins_by(&self, key: &Operand) -> Result<(), Reason> {
        let _ = key;
        Ok(())
    }

    /// Whether rows with a partner are found by `keys IN (SELECT …)`; otherwise by EXISTS.
    fn partners_by_list(&self) -> bool {
        false
    }

    /// What makes a text compare by its bytes, after the text.
    fn binary_collation(&self) -> &'static str;

    /// `IS [NOT] DISTINCT FROM`.
    fn distinct_operator(&self, negated: bool) -> &'static str;

    /// The word after `IS` that tests a condition for being neither true nor false.
    fn unknown(&self) -> &'static str;

    /// `value LIKE pattern`, case-sensitive.
    fn like(&self, value: &Operand, pattern: &Pattern) -> Result<String, Reason>;

    /// A condition on whether `needle` occurs in `haystack`.
    fn contains(&self, haystack: &Operand, needle: &Operand) -> String;
}

/// The date of a timestamp literal, and whether the literal has a time zone (the date is then
/// that in UTC). Years 1 to 9999.
pub(crate) fn timestamp_date(value: &ScalarValue) -> Option<(chrono::NaiveDate, bool)> {
    literal::timestamp_date(value)
}

/// Renders `expr`, a condition over columns of `schema`, as SQL text without a leading `WHERE`.
/// The text can be joined to others by `AND`.
///
/// # Errors
/// With the reason why the condition stays in the engine.
pub(crate) fn render_filter(
    expr: &Expr,
    schema: &Schema,
    columns: &dyn Columns,
    dialect: &dyn Dialect,
) -> Result<String, Reason> {
    let renderer = render::Renderer {
        schema,
        columns,
        dialect,
        guarded: false,
        fails_on_overflow: false,
        assigning: false,
    };
    renderer.filter(expr)
}

/// Renders `expr` as what a column of type `to` is set to. The source fails for a value that is
/// too large for the column, and would round one with more digits after the point, which is
/// therefore refused.
///
/// # Errors
/// With the reason why it cannot be computed at the source.
pub(crate) fn render_assigned(
    expr: &Expr,
    to: &DataType,
    schema: &Schema,
    columns: &dyn Columns,
    dialect: &dyn Dialect,
) -> Result<String, Reason> {
    let renderer = render::Renderer {
        schema,
        columns,
        dialect,
        guarded: true,
        fails_on_overflow: true,
        assigning: true,
    };
    let operand = renderer.operand(expr, 0)?;
    let refused = |what: String| Reason::DifferentMeaning(what);
    match (operand.class, Class::of(to)) {
        (Class::Decimal { scale: s, .. }, Some(Class::Decimal { scale: t, .. })) if s > t => {
            Err(refused(format!(
                "it has {s} digits after the point and the column {t}; say how it is rounded with \
                 CAST(… AS DECIMAL(p, {t}))"
            )))
        }
        (Class::Null, Some(_))
        | (Class::Int { .. }, Some(Class::Int { .. } | Class::Decimal { .. }))
        | (Class::Decimal { .. }, Some(Class::Decimal { .. })) => dialect.assigned(&operand, to),
        (Class::Uuid, _) => Err(refused("a uuid is set to a constant only".to_owned())),
        (from, Some(class)) if from == class => dialect.assigned(&operand, to),
        (from, _) => Err(refused(format!("it is {}, and the column is {to}", from.noun()))),
    }
}
