//! Comparing two operands, and an operand with a list.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use synoptic_types::Reason;

use super::Dialect;
use super::literal::{Plain, plain};
use super::value::{Binding, Class, Condition, Operand};

/// `left op right`.
pub(crate) fn compare(
    left: Operand,
    op: Operator,
    right: Operand,
    dialect: &dyn Dialect,
) -> Result<Condition, Reason> {
    let (word, ordering) = match op {
        Operator::Eq => ("=", false),
        Operator::NotEq => ("<>", false),
        Operator::Lt => ("<", true),
        Operator::LtEq => ("<=", true),
        Operator::Gt => (">", true),
        Operator::GtEq => (">=", true),
        Operator::IsDistinctFrom => (dialect.distinct_operator(false), false),
        Operator::IsNotDistinctFrom => (dialect.distinct_operator(true), false),
        other => return Err(Reason::NotOnAllowList(format!("the operator {other}"))),
    };
    let (left, right) = agree(left, right, ordering, dialect)?;
    Ok(Condition::new(format!("{} {word} {}", left.sql, right.sql), Binding::Comparison))
}

/// `operand [NOT] IN (items)`; the items are literals.
pub(crate) fn in_list(
    operand: Operand,
    items: Vec<Operand>,
    negated: bool,
    dialect: &dyn Dialect,
) -> Result<Condition, Reason> {
    if items.is_empty() {
        return Err(Reason::NotOnAllowList("an empty IN list".to_owned()));
    }
    let mut subject: Option<String> = None;
    let mut agreed = Vec::with_capacity(items.len());
    for item in items {
        check_item(&item)?;
        // Every item is agreed with on its own, so that the subject comes out the same each time.
        let (left, right) = agree(operand.clone(), item, false, dialect)?;
        subject.get_or_insert(left.sql);
        agreed.push(right);
    }
    let subject = subject.unwrap_or_default();
    if !negated && let Some(list) = dialect.long_list(&operand, &agreed) {
        return Ok(Condition::new(format!("{subject} {list}"), Binding::Comparison));
    }
    let list: Vec<_> = agreed.into_iter().map(|item| item.sql).collect();
    let not = if negated { "NOT " } else { "" };
    let sql = format!("{subject} {not}IN ({})", list.join(", "));
    Ok(Condition::new(sql, Binding::Comparison))
}

/// An IN list is looked up by bits here, where `=` makes one of the two zeros first; and a NULL
/// in it makes the answer unknown, which not every path here gets right.
fn check_item(item: &Operand) -> Result<(), Reason> {
    let Some(literal) = &item.literal else {
        return Err(Reason::NotOnAllowList("an IN list of other than literals".to_owned()));
    };
    match plain(literal)? {
        Plain::Null => Err(Reason::DifferentMeaning("an IN list with NULL stays here".to_owned())),
        Plain::Float32(0.0) | Plain::Float64(0.0) => Err(Reason::DifferentMeaning(
            "an IN list with a floating-point zero stays here".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Makes two operands ready to be compared.
fn agree(
    left: Operand,
    right: Operand,
    ordering: bool,
    dialect: &dyn Dialect,
) -> Result<(Operand, Operand), Reason> {
    let (left, right) = match (left.class, right.class) {
        (Class::Uuid, Class::Text) => {
            let right = uuid(right)?;
            (left, right)
        }
        (Class::Text, Class::Uuid) => (uuid(left)?, right),
        _ => (left, right),
    };
    if !left.class.agrees(right.class) {
        return Err(Reason::DifferentMeaning(format!(
            "{} is compared with {}",
            left.class.noun(),
            right.class.noun()
        )));
    }
    dialect.comparable(left, right, ordering)
}

/// A text literal as a uuid. In lower case with hyphens, uuids order as their texts do.
fn uuid(operand: Operand) -> Result<Operand, Reason> {
    let canonical = match &operand.literal {
        Some(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::LargeUtf8(Some(text))
            | ScalarValue::Utf8View(Some(text)),
        ) if is_canonical_uuid(text) => format!("'{text}'::uuid"),
        _ => {
            return Err(Reason::DifferentMeaning(
                "a uuid is compared with other than its canonical text".to_owned(),
            ));
        }
    };
    Ok(Operand { sql: canonical, class: Class::Uuid, ..operand })
}

fn is_canonical_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}
