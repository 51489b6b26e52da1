//! Candidate filters: every column × every comparison × {NULL, each edge, between, absent}.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{InList, Like};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, binary_expr, cast, ident, lit, when};

const COMPARISONS: [Operator; 8] = [
    Operator::Eq,
    Operator::NotEq,
    Operator::Lt,
    Operator::LtEq,
    Operator::Gt,
    Operator::GtEq,
    Operator::IsDistinctFrom,
    Operator::IsNotDistinctFrom,
];

/// Filters over the columns of `batch`, as a user may write them: not yet coerced or simplified.
pub fn candidates(batch: &RecordBatch) -> Vec<Expr> {
    let mut filters = Vec::new();
    for (field, values) in batch.schema().fields().iter().zip(batch.columns()) {
        let column = ident(field.name());
        let mut literals = distinct(values);
        literals.push(ScalarValue::try_from(values.data_type()).unwrap_or(ScalarValue::Null));
        literals.extend(absent(values.data_type()));
        for literal in &literals {
            let literal = Expr::Literal(literal.clone(), None);
            for operator in COMPARISONS {
                filters.push(binary_expr(column.clone(), operator, literal.clone()));
            }
            filters.push(!column.clone().lt(literal.clone()));
            filters.push(literal.clone().gt(column.clone()));
            filters.push(column.clone().eq(literal.clone()).or(ident("id").lt(lit(3_i64))));
        }
        filters.push(column.clone().is_null());
        filters.push(column.clone().is_not_null());
        filters.push(!(column.clone().is_null().or(ident("id").gt(lit(9_i64)))));
        let list = |negated: bool, with_null: bool| {
            let usable = literals.iter().filter(|v| with_null || !v.is_null()).take(6);
            let list = usable.map(|v| Expr::Literal(v.clone(), None)).collect();
            Expr::InList(InList::new(Box::new(column.clone()), list, negated))
        };
        for (negated, with_null) in [(false, false), (true, false)] {
            filters.push(list(negated, with_null));
        }
        let null = Expr::Literal(literals[literals.len() / 2].clone(), None);
        filters.push(column.clone().in_list(vec![null.clone(), null.clone()], true));
        if let (Some(low), Some(high)) = (literals.first(), literals.get(2)) {
            let (low, high) = (Expr::Literal(low.clone(), None), Expr::Literal(high.clone(), None));
            filters.push(column.clone().between(low.clone(), high.clone()));
            filters.push(column.clone().not_between(high, low));
        }
        filters.extend(by_type(&column, values.data_type()));
    }
    filters.extend(across(batch));
    filters
}

fn by_type(column: &Expr, data_type: &DataType) -> Vec<Expr> {
    let column = column.clone();
    match data_type {
        DataType::Boolean => vec![
            column.clone(),
            !column.clone(),
            column.clone().is_true(),
            column.clone().is_not_false(),
            column.is_unknown(),
        ],
        t if t.is_string() => {
            let like = |pattern: &str, negated: bool, insensitive: bool, escape: Option<char>| {
                let pattern = Box::new(lit(pattern));
                Expr::Like(Like::new(
                    negated,
                    Box::new(column.clone()),
                    pattern,
                    escape,
                    insensitive,
                ))
            };
            let mut likes = Vec::new();
            for pattern in
                ["a%", "%b", "_", "%", "", "A%", "100\\%", "%\\\\%", "é%", "a\\_b", "%'%"]
            {
                likes.push(like(pattern, false, false, None));
                likes.push(like(pattern, true, false, None));
                likes.push(like(pattern, false, true, None));
            }
            likes.push(cast(column.clone(), DataType::Utf8).gt(lit("M")));
            likes.push(column.clone().gt(lit(9_i64)).or(ident("id").eq(lit(1_i64))));
            likes
        }
        t if t.is_integer() => vec![
            (column.clone() % lit(2_i64)).eq(lit(1_i64)),
            (column.clone() / lit(2_i64)).gt(lit(0_i64)),
            column.clone().gt(lit(0.5)),
            cast(column.clone(), DataType::Float64).lt(lit(1e9)),
            cast(column, DataType::Utf8).eq(lit("7")),
        ],
        t if t.is_floating() => vec![
            column.clone().gt(lit(1_i64)),
            (column.clone() * lit(2.0)).gt_eq(lit(3.0)),
            cast(column, DataType::Utf8).not_eq(lit("1.5")),
        ],
        DataType::Decimal128(..) => vec![
            column.clone().gt(lit(0_i64)),
            column.clone().lt(lit(1.5)),
            cast(column, DataType::Decimal128(38, 2))
                .eq(Expr::Literal(ScalarValue::Decimal128(Some(123), 38, 2), None)),
        ],
        DataType::Timestamp(..) => vec![
            cast(column.clone(), DataType::Date32)
                .eq(Expr::Literal(ScalarValue::Date32(Some(-1)), None)),
            // Finer than the column.
            column.gt(Expr::Literal(ScalarValue::TimestampNanosecond(Some(500), None), None)),
        ],
        _ => Vec::new(),
    }
}

fn across(batch: &RecordBatch) -> Vec<Expr> {
    let has = |name: &str| batch.schema().index_of(name).is_ok();
    let mut filters = Vec::new();
    if has("i32") && has("i64") {
        filters.push(ident("i32").lt(ident("i64")));
        filters.push((ident("i32") + ident("id")).gt(lit(5_i64)));
        let case = when(ident("i32").gt(lit(0)), lit(1_i64)).otherwise(ident("i64"));
        filters.extend(case.map(|case| case.eq(lit(1_i64))));
    }
    if has("i64") && has("f64") {
        filters.push(ident("i64").lt(ident("f64")));
    }
    if has("ts") && has("day") {
        filters.push(ident("ts").gt_eq(ident("day")));
    }
    if has("text") {
        filters.push(ident("text").eq(ident("text")));
        filters.push(Expr::BinaryExpr(BinaryExpr::new(
            Box::new(ident("text").eq(lit("a"))),
            Operator::Or,
            Box::new(ident("text").is_null().and(ident("id").gt(lit(2_i64)))),
        )));
    }
    filters
}

fn distinct(values: &dyn Array) -> Vec<ScalarValue> {
    let mut found: Vec<ScalarValue> = Vec::new();
    for row in 0..values.len() {
        if let Ok(value) = ScalarValue::try_from_array(values, row)
            && !value.is_null()
            && !found.contains(&value)
            && found.len() < 18
        {
            found.push(value);
        }
    }
    found
}

/// Values that no row has, inside and outside the range of those that are there.
fn absent(data_type: &DataType) -> Vec<ScalarValue> {
    match data_type {
        DataType::Int16 => vec![ScalarValue::Int16(Some(2))],
        DataType::Int32 => vec![ScalarValue::Int32(Some(2)), ScalarValue::Int64(Some(1 << 40))],
        DataType::Int64 => vec![ScalarValue::Int64(Some(2)), ScalarValue::Float64(Some(0.5))],
        DataType::Float64 => vec![ScalarValue::Float64(Some(0.25)), ScalarValue::Int64(Some(1))],
        DataType::Utf8 => {
            vec!["b".into(), "zz".into(), "'; DROP TABLE x --".into(), "\u{10FFFF}".into()]
        }
        DataType::Date32 => vec![ScalarValue::Date32(Some(1))],
        DataType::Decimal128(p, s) => vec![ScalarValue::Decimal128(Some(7), *p, *s)],
        _ => Vec::new(),
    }
}
