//! Aggregates of which a part can be done below a union or a join.
//!
//! ```text
//! Aggregate [sum(qty)] by desk                 Aggregate [sum(p0)] by desk
//!   Join trade.desk_id = desk.id        ─►       Join k0 = desk.id
//!     trades                                       Aggregate [sum(qty) AS p0] by desk_id AS k0
//!     desks                                          trades
//!                                                desks
//! ```
//!
//! Where `trades` are at one source and `desks` at another, the join cannot be; the lower aggregate
//! can, and then sends a row for each desk instead of every trade. This is the eager aggregation of
//! Yan and Larson, "Eager Aggregation and Lazy Aggregation", VLDB 1995: rows with equal keys meet the
//! same partners, so that their sum meets them as often as each of them would have.
//!
//! What is below sees rows that the join would drop, so its values must be such that cannot fail: no
//! sum of theirs may overflow where the whole one would not.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Result, TableReference};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprSchemable as _, Join, LogicalPlan, Projection,
    SubqueryAlias, Union, cast, lit, when,
};

use crate::join_order::is_safe;
use crate::semantics::checked_sum;

use super::build::unaliased;

/// The columns between both parts are of this relation: what has some is split already.
const RELATION: &str = "__partial";
/// Ways that are compared, of one aggregate.
const MOST_WAYS: usize = 8;

/// Other plans for the same rows in the same columns, with a part of the aggregate further down.
///
/// # Errors
/// When a plan does not fit together, which is a bug.
pub(super) fn splits(aggregate: &Aggregate) -> Result<Vec<LogicalPlan>> {
    let schema = aggregate.input.schema();
    if schema.iter().any(|(relation, _)| relation.is_some_and(|r| r.table() == RELATION)) {
        return Ok(Vec::new());
    }
    let Some(parts) = Parts::of(aggregate) else { return Ok(Vec::new()) };
    let mut ways = below(&aggregate.input, parts, &aggregate.schema)?;
    ways.truncate(MOST_WAYS);
    ways.retain(|way| has_same_columns(way.schema(), &aggregate.schema));
    Ok(ways)
}

/// Names, types and nullability; what hangs on them beside that nobody counts on.
fn has_same_columns(one: &DFSchema, other: &DFSchema) -> bool {
    one.fields().len() == other.fields().len()
        && one.iter().zip(other.iter()).all(|((a, one), (b, other))| {
            a == b
                && one.name() == other.name()
                && one.data_type() == other.data_type()
                && one.is_nullable() == other.is_nullable()
        })
}

/// An aggregate's expressions, over the columns of whatever plan they were taken down to.
#[derive(Clone)]
struct Parts {
    groups: Vec<Expr>,
    calls: Vec<Call>,
}

/// One aggregate function, in two steps.
#[derive(Clone)]
struct Call {
    lower: AggregateFunction,
    /// What makes one value of those of the lower step.
    upper: Arc<AggregateUDF>,
    /// Of nothing it is 0, and not NULL.
    counts: bool,
}

impl Parts {
    /// `None` when one of the functions has no two steps with exactly the same outcome.
    fn of(aggregate: &Aggregate) -> Option<Self> {
        let groups = &aggregate.group_expr;
        if groups.iter().any(|group| matches!(group, Expr::GroupingSet(_)) || group.is_volatile()) {
            return None;
        }
        let groups = groups.iter().map(|group| unaliased(group).clone()).collect();
        let calls = aggregate.aggr_expr.iter().map(|call| Call::of(call, aggregate));
        Some(Self { groups, calls: calls.collect::<Option<_>>()? })
    }

    /// Every expression with its columns replaced.
    fn map(&self, to: &impl Fn(&Column) -> Result<Expr>) -> Result<Self> {
        let groups = self.groups.iter().map(|group| replaced(group, to));
        let calls = self.calls.iter().map(|call| call.map(to));
        Ok(Self { groups: groups.collect::<Result<_>>()?, calls: calls.collect::<Result<_>>()? })
    }
}

impl Call {
    fn of(expr: &Expr, aggregate: &Aggregate) -> Option<Self> {
        let Expr::AggregateFunction(call) = unaliased(expr) else { return None };
        let params = &call.params;
        if !params.order_by.is_empty() || params.null_treatment.is_some() || expr.is_volatile() {
            return None;
        }
        let lower = call.clone();
        Some(match (call.func.name(), params.distinct) {
            ("count", false) => Self { lower, upper: checked_sum(), counts: true },
            ("sum", false) => {
                let upper = Arc::clone(&call.func);
                Self { lower: with_room(lower, aggregate.input.schema())?, upper, counts: false }
            }
            ("min" | "max", _) => Self { lower, upper: Arc::clone(&call.func), counts: false },
            _ => return None,
        })
    }

    fn map(&self, to: &impl Fn(&Column) -> Result<Expr>) -> Result<Self> {
        let mut lower = self.lower.clone();
        for arg in &mut lower.params.args {
            *arg = replaced(arg, to)?;
        }
        if let Some(filter) = &mut lower.params.filter {
            **filter = replaced(filter, to)?;
        }
        Ok(Self { lower, ..self.clone() })
    }

    /// What it reads.
    fn inputs(&self) -> impl Iterator<Item = &Expr> {
        self.lower.params.args.iter().chain(self.lower.params.filter.as_deref())
    }

    /// The upper step over the values in `column`.
    fn again(&self, column: Expr) -> Expr {
        Expr::AggregateFunction(AggregateFunction::new_udf(
            Arc::clone(&self.upper),
            vec![column],
            false,
            None,
            Vec::new(),
            None,
        ))
    }
}

/// A sum whose parts fit their type whenever the whole does, as far as there are values for it: of
/// decimals that leave it digits for ten thousand of the largest, of whole numbers as decimals. `None`
/// of others; the order in which floating-point numbers are added changes their sum.
fn with_room(mut sum: AggregateFunction, schema: &DFSchema) -> Option<AggregateFunction> {
    let [arg] = sum.params.args.as_mut_slice() else { return None };
    match arg.get_type(schema).ok()? {
        DataType::Decimal128(precision, _) if precision <= DECIMAL128_MAX_PRECISION - 4 => {}
        DataType::Int64 | DataType::UInt64 => {
            let narrow = match unaliased(arg) {
                Expr::Cast(cast) => cast.expr.get_type(schema).ok()?,
                other => other.get_type(schema).ok()?,
            };
            // Four thousand million of the largest of those fit.
            if !narrow.is_integer() || narrow.primitive_width()? > 4 {
                *arg = cast(arg.clone(), DataType::Decimal128(20, 0));
            }
        }
        _ => return None,
    }
    Some(sum)
}

/// The ways to do a part of an aggregate over `input` below it.
fn below(input: &LogicalPlan, parts: Parts, schema: &DFSchemaRef) -> Result<Vec<LogicalPlan>> {
    match input {
        LogicalPlan::Projection(projection) => {
            if projection.expr.iter().any(Expr::is_volatile) {
                return Ok(Vec::new());
            }
            let parts = parts.map(&|column| {
                let index = projection.schema.index_of_column(column)?;
                Ok(projection.expr.get(index).map_or_else(|| column.clone().into(), plain))
            })?;
            below(&projection.input, parts, schema)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let parts = parts.map(&by_place(&alias.schema, alias.input.schema()))?;
            below(&alias.input, parts, schema)
        }
        LogicalPlan::Union(union) if union.inputs.iter().all(|input| is_alike(input, union)) => {
            Ok(vec![over_union(union, &parts, schema)?])
        }
        LogicalPlan::Join(join) if !join.null_aware => over_join(join, &parts, schema),
        _ => Ok(Vec::new()),
    }
}

fn is_alike(input: &LogicalPlan, union: &Union) -> bool {
    let types = |schema: &DFSchema| -> Vec<DataType> {
        schema.fields().iter().map(|field| field.data_type().clone()).collect()
    };
    types(input.schema()) == types(&union.schema)
}

/// Each input's groups, then those of them all.
fn over_union(union: &Union, parts: &Parts, schema: &DFSchemaRef) -> Result<LogicalPlan> {
    let lower = union.inputs.iter().map(|input| {
        let own = parts.map(&by_place(&union.schema, input.schema()))?;
        let here = grouped(input, &own.groups, &own.calls)?;
        named(LogicalPlan::Aggregate(here), own.groups.len()).map(Arc::new)
    });
    let lower = Union::try_new(lower.collect::<Result<_>>()?)?;
    let named = SubqueryAlias::try_new(Arc::new(LogicalPlan::Union(lower)), RELATION)?;
    let groups = (0..parts.groups.len()).map(key).collect();
    upper(LogicalPlan::SubqueryAlias(named), groups, &parts.calls, schema)
}

/// The groups of one side by all that the rest of the plan wants of it; then the join, then the
/// groups that were asked for.
fn over_join(join: &Join, parts: &Parts, schema: &DFSchemaRef) -> Result<Vec<LogicalPlan>> {
    let sides = match join.join_type {
        JoinType::Inner => [true, true],
        // Every row of the other side may yield one with NULLs, of which there are no groups.
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => [true, false],
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => [false, true],
        _ => [false, false],
    };
    // Each pair of rows has a value of its own.
    let mut conditions = join.on.iter().flat_map(|(a, b)| [a, b]).chain(&join.filter);
    if conditions.any(Expr::is_volatile) {
        return Ok(Vec::new());
    }
    let columns = [&join.left, &join.right].map(|side| side.schema().columns());
    let of_one = |column: &&Column| columns.iter().filter(|c| c.contains(column)).count() == 1;
    let all =
        parts.groups.iter().chain(&join.filter).chain(parts.calls.iter().flat_map(Call::inputs));
    if !all.flat_map(Expr::column_refs).all(|column| of_one(&column)) {
        return Ok(Vec::new());
    }
    let mut ways = Vec::new();
    for ((is_left, fits), own) in [true, false].into_iter().zip(sides).zip(&columns) {
        let side = if is_left { &join.left } else { &join.right };
        let of_side = |expr: &Expr| expr.column_refs().iter().all(|column| own.contains(column));
        let safe = |expr: &Expr| of_side(expr) && is_safe(expr, side.schema());
        if !fits || !parts.calls.iter().flat_map(Call::inputs).all(safe) {
            continue;
        }
        let mut keys: Vec<Expr> = Vec::new();
        let want = |keys: &mut Vec<Expr>, expr: Expr| {
            if !keys.contains(&expr) {
                keys.push(expr);
            }
        };
        for (left, right) in &join.on {
            want(&mut keys, plain(if is_left { left } else { right }));
        }
        for group in &parts.groups {
            if of_side(group) && !group.column_refs().is_empty() && is_safe(group, side.schema()) {
                want(&mut keys, group.clone());
            }
        }
        // What is computed of both sides needs the columns themselves.
        let mixed = parts.groups.iter().filter(|group| !keys.contains(group)).chain(&join.filter);
        let wanted: HashSet<&Column> = mixed.flat_map(Expr::column_refs).collect();
        // In the order of the side, so that one statement has one plan.
        let wanted = own.iter().filter(|column| wanted.contains(column)).cloned();
        let wanted: Vec<Expr> = wanted.map(Expr::Column).collect();
        // -0.0 and 0.0 are one group, of which only one is left to compute with.
        let is_exact = |column: &Expr| {
            column.get_type(side.schema()).is_ok_and(|t| !t.is_floating() && !t.is_nested())
        };
        if !wanted.iter().all(is_exact) {
            continue;
        }
        for column in wanted {
            want(&mut keys, column);
        }
        // Without groups there is one row even of nothing, which would have partners.
        if keys.is_empty() && !parts.groups.is_empty() {
            continue;
        }

        let here = grouped(side, &keys, &parts.calls)?;
        // The side may be a join again.
        let again = Parts { groups: keys.clone(), calls: parts.calls.clone() };
        let deeper = below(side, again, &here.schema)?;
        let same = |way: &LogicalPlan| has_same_columns(way.schema(), &here.schema);
        let deeper = deeper.into_iter().filter(same).collect::<Vec<_>>();
        for way in std::iter::once(LogicalPlan::Aggregate(here)).chain(deeper) {
            let way = Arc::new(named(way, keys.len())?);
            ways.push(joined(join, is_left, way, &keys, parts, schema)?);
        }
    }
    Ok(ways)
}

/// `join` with `grouped` for one of its sides, and the groups of that.
fn joined(
    join: &Join,
    is_left: bool,
    grouped: Arc<LogicalPlan>,
    keys: &[Expr],
    parts: &Parts,
    schema: &DFSchemaRef,
) -> Result<LogicalPlan> {
    // An expression over the join's columns, over those of the new one.
    let over = |expr: &Expr| {
        let found = expr.clone().transform_down(|expr| {
            let place = keys.iter().position(|key| *key == expr);
            Ok(match place {
                Some(place) => Transformed::new(key(place), true, TreeNodeRecursion::Jump),
                None => Transformed::no(expr),
            })
        });
        found.map(|found| found.data)
    };
    let on = join.on.iter().map(|(left, right)| match is_left {
        true => Ok((over(&plain(left))?, right.clone())),
        false => Ok((left.clone(), over(&plain(right))?)),
    });
    let (left, right) = match is_left {
        true => (grouped, Arc::clone(&join.right)),
        false => (Arc::clone(&join.left), grouped),
    };
    let new = Join::try_new(
        left,
        right,
        on.collect::<Result<_>>()?,
        join.filter.as_ref().map(over).transpose()?,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    let groups = parts.groups.iter().map(over).collect::<Result<_>>()?;
    upper(LogicalPlan::Join(new), groups, &parts.calls, schema)
}

/// The lower step.
fn grouped(input: &Arc<LogicalPlan>, groups: &[Expr], calls: &[Call]) -> Result<Aggregate> {
    let calls = calls.iter().map(|call| Expr::AggregateFunction(call.lower.clone())).collect();
    Aggregate::try_new(Arc::clone(input), groups.to_vec(), calls)
}

/// The columns of groups and aggregates as [`key`] and [`value`] call them.
fn named(plan: LogicalPlan, groups: usize) -> Result<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(place, column)| {
        let name = match place.checked_sub(groups) {
            None => key(place),
            Some(place) => value(place),
        };
        let Expr::Column(Column { name, .. }) = name else { return Expr::Column(column) };
        Expr::Column(column).alias_qualified(Some(TableReference::bare(RELATION)), name)
    });
    let columns = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// The upper step over `input`, with the columns of `schema`.
fn upper(
    input: LogicalPlan,
    groups: Vec<Expr>,
    calls: &[Call],
    schema: &DFSchemaRef,
) -> Result<LogicalPlan> {
    let count = groups.len();
    let again = calls.iter().enumerate().map(|(place, call)| call.again(value(place))).collect();
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), groups, again)?);
    let columns = plan.schema().columns().into_iter().zip(schema.iter()).enumerate();
    let columns = columns.map(|(place, (column, (relation, field)))| {
        let call = place.checked_sub(count).and_then(|place| calls.get(place));
        let made = Expr::Column(column);
        let made = match call {
            Some(call) if call.counts => {
                when(made.clone().is_not_null(), made).otherwise(lit(0_i64))?
            }
            _ => made,
        };
        // A sum of sums has more digits; what does not fit the sum's own is an error, as it was.
        let is_wider = |from: &DataType| from != field.data_type();
        let made = match made.get_type(plan.schema()) {
            Ok(from) if is_wider(&from) => made.cast_to(field.data_type(), plan.schema())?,
            _ => made,
        };
        Ok(made.alias_qualified(relation.cloned(), field.name()))
    });
    let columns = columns.collect::<Result<_>>()?;
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// The column of the lower step's group `place`.
fn key(place: usize) -> Expr {
    Expr::Column(Column::new(Some(RELATION), format!("k{place}")))
}

/// The column of the lower step's aggregate `place`.
fn value(place: usize) -> Expr {
    Expr::Column(Column::new(Some(RELATION), format!("p{place}")))
}

/// A column of one schema is the one at the same place of another.
fn by_place<'a>(from: &'a DFSchema, to: &'a DFSchema) -> impl Fn(&Column) -> Result<Expr> + 'a {
    |column| Ok(Expr::Column(Column::from(to.qualified_field(from.index_of_column(column)?))))
}

fn replaced(expr: &Expr, to: &impl Fn(&Column) -> Result<Expr>) -> Result<Expr> {
    let replaced = expr.clone().transform_down(|expr| match &expr {
        Expr::Column(column) => Ok(Transformed::new(to(column)?, true, TreeNodeRecursion::Jump)),
        _ => Ok(Transformed::no(expr)),
    })?;
    Ok(replaced.data)
}

fn plain(expr: &Expr) -> Expr {
    unaliased(expr).clone()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::functions_aggregate::expr_fn::{avg, count, max, min, sum};
    use datafusion::logical_expr::{LogicalPlanBuilder, col, table_scan};

    use super::*;

    fn scan(name: &str) -> LogicalPlanBuilder {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("desk", DataType::Int32, true),
            Field::new("amount", DataType::Decimal128(15, 2), true),
            Field::new("price", DataType::Float64, true),
            Field::new("text", DataType::Utf8, true),
        ]);
        table_scan(Some(name), &schema, None).expect("a scan")
    }

    fn joined(kind: JoinType) -> LogicalPlanBuilder {
        let desks = scan("d").build().expect("a scan");
        scan("t").join(desks, kind, (vec!["t.desk"], vec!["d.id"]), None).expect("a join")
    }

    /// The ways of an aggregate, as texts.
    fn ways(input: LogicalPlanBuilder, groups: Vec<Expr>, calls: Vec<Expr>) -> Vec<String> {
        let plan = input.aggregate(groups, calls).expect("an aggregate").build().expect("a plan");
        let LogicalPlan::Aggregate(aggregate) = plan else { panic!("no aggregate: {plan}") };
        let ways = splits(&aggregate).expect("plans");
        ways.iter().map(|way| way.display_indent().to_string()).collect()
    }

    #[test]
    fn sums_are_made_on_the_side_they_are_of() {
        let calls = vec![sum(col("t.amount")), count(col("t.text")), min(col("t.id"))];
        let ways = ways(joined(JoinType::Inner), vec![col("d.text")], calls);
        let [way] = ways.as_slice() else { panic!("{ways:#?}") };
        assert_eq!(
            way.lines().map(str::trim).collect::<Vec<_>>(),
            [
                "Projection: d.text AS text, CAST(sum(__partial.p0) AS Decimal128(25, 2)) AS sum(t.amount), \
                 CASE WHEN sum(__partial.p1) IS NOT NULL THEN sum(__partial.p1) ELSE Int64(0) END AS count(t.text), \
                 min(__partial.p2) AS min(t.id)",
                "Aggregate: groupBy=[[d.text]], \
                 aggr=[[sum(__partial.p0), sum(__partial.p1), min(__partial.p2)]]",
                "Inner Join: __partial.k0 = d.id",
                "Projection: t.desk AS k0, sum(t.amount) AS p0, count(t.text) AS p1, min(t.id) AS p2",
                "Aggregate: groupBy=[[t.desk]], aggr=[[sum(t.amount), count(t.text), min(t.id)]]",
                "TableScan: t",
                "TableScan: d",
            ]
        );
    }

    #[test]
    fn rows_that_are_counted_may_be_of_either_side() {
        let both = ways(joined(JoinType::Inner), vec![], vec![count(lit(1_i64))]);
        assert_eq!(both.len(), 2, "{both:#?}");
        let kept = ways(joined(JoinType::Left), vec![], vec![count(lit(1_i64))]);
        assert_eq!(kept.len(), 1, "{kept:#?}");
        assert!(kept[0].contains("Aggregate: groupBy=[[t.desk]]"), "{kept:#?}");
        assert!(ways(joined(JoinType::Full), vec![], vec![count(lit(1_i64))]).is_empty());
    }

    #[test]
    fn what_the_lower_step_would_lose_stays_whole() {
        let desks = || scan("d").build().expect("a scan");
        let calls = || vec![count(lit(1_i64)), max(col("t.id"))];
        // No group of the trades is none, and not one.
        let crossed = || scan("t").cross_join(desks()).expect("a join");
        assert!(ways(crossed(), vec![col("d.text")], calls()).is_empty());
        assert_eq!(ways(crossed(), vec![], calls()).len(), 1);
        let to_text = cast(col("t.price"), DataType::Utf8);
        assert!(ways(joined(JoinType::Inner), vec![to_text], calls()).is_empty());
        assert_eq!(ways(joined(JoinType::Inner), vec![col("t.price")], calls()).len(), 1);
        let chance = datafusion::functions::expr_fn::random().lt(col("t.price"));
        let by_chance = scan("t").join_on(desks(), JoinType::Inner, [chance]).expect("a join");
        assert!(ways(by_chance, vec![col("t.desk")], calls()).is_empty());
    }

    #[test]
    fn what_has_no_two_steps_stays_whole() {
        for call in [
            sum(col("t.price")),
            avg(col("t.amount")),
            sum(col("t.amount") + col("d.amount")),
            // It fails for rows that have no desk.
            max(lit(1) / col("t.id")),
        ] {
            let ways = ways(joined(JoinType::Inner), vec![col("d.text")], vec![call.clone()]);
            assert!(ways.is_empty(), "{call}: {ways:#?}");
        }
        let groups = vec![col("text"), col("id")];
        assert!(ways(scan("t"), groups, vec![sum(col("amount"))]).is_empty());
    }

    #[test]
    fn unions_and_joins_of_joins_are_gone_into() {
        let abroad = scan("a").build().expect("a scan");
        let both = scan("t").union(abroad).expect("a union");
        let calls = vec![sum(col("amount")), count(lit(1_i64))];
        let ways_of_union = ways(both, vec![col("desk")], calls);
        let [way] = ways_of_union.as_slice() else { panic!("{ways_of_union:#?}") };
        assert_eq!(
            way.lines().skip(1).map(str::trim).collect::<Vec<_>>(),
            [
                "Aggregate: groupBy=[[__partial.k0]], aggr=[[sum(__partial.p0), sum(__partial.p1)]]",
                "SubqueryAlias: __partial",
                "Union",
                "Projection: t.desk AS k0, sum(t.amount) AS p0, count(Int64(1)) AS p1",
                "Aggregate: groupBy=[[t.desk]], aggr=[[sum(t.amount), count(Int64(1))]]",
                "TableScan: t",
                "Projection: a.desk AS k0, sum(a.amount) AS p0, count(Int64(1)) AS p1",
                "Aggregate: groupBy=[[a.desk]], aggr=[[sum(a.amount), count(Int64(1))]]",
                "TableScan: a",
            ]
        );
        let third = scan("x").build().expect("a scan");
        let three = joined(JoinType::Inner)
            .join(third, JoinType::Inner, (vec!["d.desk"], vec!["x.id"]), None)
            .expect("a join");
        let ways = ways(three, vec![col("x.text")], vec![max(col("t.amount"))]);
        assert_eq!(ways.len(), 2, "{ways:#?}");
        assert!(ways[1].contains("Aggregate: groupBy=[[t.desk]]"), "{ways:#?}");
    }
}
