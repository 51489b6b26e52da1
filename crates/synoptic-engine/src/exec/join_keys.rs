//! What a filter that a join makes while it runs says of each column, no less and maybe more.
//!
//! DataFusion's filter is a tree: bounds and lists of keys, in a CASE over the partitions of the
//! build side, with look-ups in hash tables that no source can make. Here it becomes one [`Domain`]
//! for each column it is about. Every step may let more rows through and never fewer: the join
//! itself is the check.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, Schema};
use datafusion::common::{HashSet, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNullExpr,
    Literal,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// Rows a filter lets through, by column index.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Keys {
    /// Nothing is known.
    Any,
    /// No row can match.
    None,
    /// Rows whose every column here is in its domain.
    In(BTreeMap<usize, Domain>),
}

/// The values of one column.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Domain {
    pub values: Option<HashSet<ScalarValue>>,
    pub low: Option<ScalarValue>,
    pub high: Option<ScalarValue>,
    /// Whether NULL is one of them.
    pub nulls: bool,
}

impl Keys {
    /// What `filter`, over columns of `schema`, says now.
    pub(super) fn of(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Self {
        if let Some(dynamic) = filter.downcast_ref::<DynamicFilterPhysicalExpr>() {
            return dynamic.current().map_or(Self::Any, |current| Self::of(&current, schema));
        }
        if let Some(literal) = filter.downcast_ref::<Literal>() {
            return match literal.value() {
                ScalarValue::Boolean(Some(false)) => Self::None,
                _ => Self::Any,
            };
        }
        if let Some(binary) = filter.downcast_ref::<BinaryExpr>() {
            let sides = || (Self::of(binary.left(), schema), Self::of(binary.right(), schema));
            return match binary.op() {
                Operator::And => sides().0.and(sides().1),
                Operator::Or => sides().0.or(sides().1),
                op => comparison(binary.left(), *op, binary.right(), schema),
            };
        }
        if let Some(case) = filter.downcast_ref::<CaseExpr>() {
            // Whichever branch a row takes. Without ELSE, other rows are not let through.
            let branches = case.when_then_expr().iter().map(|(_, then)| then);
            return branches
                .chain(case.else_expr())
                .fold(Self::None, |all, branch| all.or(Self::of(branch, schema)));
        }
        if let Some(list) = filter.downcast_ref::<InListExpr>() {
            return if list.negated() { Self::Any } else { membership(list, schema) };
        }
        if let Some(test) = filter.downcast_ref::<IsNullExpr>() {
            return match test.arg().downcast_ref::<Column>() {
                Some(column) => {
                    let values = Some(HashSet::new());
                    Self::one(column.index(), Domain { values, nulls: true, ..Domain::default() })
                }
                None => Self::Any,
            };
        }
        Self::Any
    }

    fn one(column: usize, domain: Domain) -> Self {
        Self::In(BTreeMap::from([(column, domain)]))
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::Any, keys) | (keys, Self::Any) => keys,
            (Self::In(mut all), Self::In(more)) => {
                for (column, domain) in more {
                    let both = match all.remove(&column) {
                        Some(known) => known.and(domain),
                        None => domain,
                    };
                    if both.is_empty() {
                        return Self::None;
                    }
                    all.insert(column, both);
                }
                Self::In(all)
            }
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => Self::Any,
            (Self::None, keys) | (keys, Self::None) => keys,
            (Self::In(some), Self::In(mut others)) => {
                // A column that only one side restricts is not restricted.
                let both = some.into_iter().filter_map(|(column, domain)| {
                    Some((column, domain.or(others.remove(&column)?)?))
                });
                let both: BTreeMap<_, _> = both.collect();
                if both.is_empty() { Self::Any } else { Self::In(both) }
            }
        }
    }
}

impl Domain {
    fn is_empty(&self) -> bool {
        !self.nulls && self.values.as_ref().is_some_and(HashSet::is_empty)
    }

    fn and(self, other: Self) -> Self {
        let values = match (self.values, other.values) {
            (Some(some), Some(others)) => {
                Some(some.into_iter().filter(|value| others.contains(value)).collect())
            }
            (one, another) => one.or(another),
        };
        Self {
            values,
            low: both(self.low, other.low, Ordering::Greater),
            high: both(self.high, other.high, Ordering::Less),
            nulls: self.nulls && other.nulls,
        }
    }

    /// `None` when that is every value.
    fn or(self, other: Self) -> Option<Self> {
        let nulls = self.nulls || other.nulls;
        let nothing = |domain: &Self| domain.values.as_ref().is_some_and(HashSet::is_empty);
        if nothing(&self) {
            return Some(Self { nulls, ..other });
        }
        if nothing(&other) {
            return Some(Self { nulls, ..self });
        }
        let values = match (self.values, other.values) {
            (Some(mut some), Some(others)) => {
                some.extend(others);
                Some(some)
            }
            _ => None,
        };
        let low = self.low.zip(other.low).and_then(|(a, b)| pick(a, b, Ordering::Less));
        let high = self.high.zip(other.high).and_then(|(a, b)| pick(a, b, Ordering::Greater));
        let known = values.is_some() || low.is_some() || high.is_some();
        known.then_some(Self { values, low, high, nulls })
    }
}

/// The one that is `wanted` than the other.
fn pick(a: ScalarValue, b: ScalarValue, wanted: Ordering) -> Option<ScalarValue> {
    let order = a.partial_cmp(&b)?;
    Some(if order == wanted { a } else { b })
}

fn both(a: Option<ScalarValue>, b: Option<ScalarValue>, wanted: Ordering) -> Option<ScalarValue> {
    match (a, b) {
        (Some(a), Some(b)) => pick(a.clone(), b, wanted).or(Some(a)),
        (one, other) => one.or(other),
    }
}

/// `column op literal`, as joins write bounds.
fn comparison(
    left: &Arc<dyn PhysicalExpr>,
    op: Operator,
    right: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Keys {
    let (Some(key), Some(literal)) = (Key::of(left, schema), right.downcast_ref::<Literal>())
    else {
        return Keys::Any;
    };
    // A bound of another type would have to be rounded to the column's.
    let value = literal.value().clone();
    if key.is_cast || value.is_null() || value.data_type() != *key.data_type {
        return Keys::Any;
    }
    let domain = match op {
        Operator::Gt | Operator::GtEq => Domain { low: Some(value), ..Domain::default() },
        Operator::Lt | Operator::LtEq => Domain { high: Some(value), ..Domain::default() },
        Operator::Eq => Domain { values: Some(HashSet::from([value])), ..Domain::default() },
        _ => return Keys::Any,
    };
    Keys::one(key.index, domain)
}

/// `column IN (…)`, or `struct(column, …) IN (…)` for keys of several columns.
fn membership(list: &InListExpr, schema: &Schema) -> Keys {
    let literals: Option<Vec<&ScalarValue>> =
        list.list().iter().map(|item| item.downcast_ref::<Literal>().map(Literal::value)).collect();
    let Some(literals) = literals else { return Keys::Any };
    if let Some(key) = Key::of(list.expr(), schema) {
        return key.values(literals.into_iter().cloned());
    }
    let Some(call) = list.expr().downcast_ref::<ScalarFunctionExpr>() else { return Keys::Any };
    if call.name() != "struct" {
        return Keys::Any;
    }
    let mut all = Keys::Any;
    for (place, part) in call.args().iter().enumerate() {
        let Some(key) = Key::of(part, schema) else { continue };
        if let Some(values) = distinct(&literals, place) {
            all = all.and(key.values(values.into_iter()));
        }
    }
    all
}

/// The different values in column `place` of rows that are literals: of many keys of two columns,
/// one column often has few.
fn distinct(rows: &[&ScalarValue], place: usize) -> Option<HashSet<ScalarValue>> {
    let (mut numbers, mut others) = (HashSet::new(), HashSet::new());
    for row in rows {
        let ScalarValue::Struct(row) = row else { return None };
        let column = row.columns().get(place).filter(|column| column.len() == 1)?;
        match column.as_primitive_opt::<Int64Type>().filter(|column| column.is_valid(0)) {
            Some(column) => _ = numbers.insert(column.value(0)),
            None => _ = others.insert(ScalarValue::try_from_array(column, 0).ok()?),
        }
    }
    others.extend(numbers.into_iter().map(ScalarValue::from));
    Some(others)
}

/// A column of the scan, perhaps widened to the type of the other side's key.
struct Key<'a> {
    index: usize,
    data_type: &'a DataType,
    is_cast: bool,
}

impl<'a> Key<'a> {
    fn of(expr: &Arc<dyn PhysicalExpr>, schema: &'a Schema) -> Option<Self> {
        let (column, cast) = match expr.downcast_ref::<CastExpr>() {
            Some(cast) => (cast.expr().downcast_ref::<Column>()?, Some(cast.cast_type())),
            None => (expr.downcast_ref::<Column>()?, None),
        };
        let field = schema.fields().get(column.index()).filter(|f| f.name() == column.name())?;
        let data_type = field.data_type();
        // Zeros and NaNs have several forms, which joins and sources tell apart differently.
        if data_type.is_floating() || data_type.is_nested() {
            return None;
        }
        if cast.is_some_and(|to| !widens(data_type, to)) {
            return None;
        }
        Some(Self { index: column.index(), data_type, is_cast: cast.is_some() })
    }

    /// NULL is no key: the join adds `IS NULL` where it is one.
    fn values(&self, values: impl Iterator<Item = ScalarValue>) -> Keys {
        let mut kept = HashSet::new();
        for value in values.filter(|value| !value.is_null()) {
            if value.data_type() == *self.data_type {
                kept.insert(value);
            } else if widens(self.data_type, &value.data_type()) {
                // What does not fit the column equals none of its values.
                kept.extend(value.cast_to(self.data_type).ok().filter(|value| !value.is_null()));
            } else {
                return Keys::Any;
            }
        }
        let domain = Domain { values: Some(kept), ..Domain::default() };
        if domain.is_empty() { Keys::None } else { Keys::one(self.index, domain) }
    }
}

/// Whether every value of `from` has exactly one equal in `to`.
fn widens(from: &DataType, to: &DataType) -> bool {
    let is_text =
        |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    (from.is_signed_integer()
        && to.is_signed_integer()
        && from.primitive_width() <= to.primitive_width())
        || (is_text(from) && is_text(to))
}
