//! DataFusion's operators as those of a [`Relation`].

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinType, NullEquality};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::{
    Aggregate as AggregatePlan, Expr, FetchType, Join, Limit, LogicalPlan, Projection, SkipType,
    Sort,
};
use synoptic_source::{Aggregate, JoinKind, Operator, Relation, SortKey};
use synoptic_types::Reason;

use super::cost::{self, ColumnEstimate, Estimate, Work};

/// A relation over others, what is expected of it, and what its root costs.
pub(super) struct Built {
    pub relation: Relation,
    pub estimate: Estimate,
    pub work: Work,
}

/// A relation with what is expected of it.
pub(super) type Input<'a> = (&'a Arc<Relation>, &'a Estimate);

/// `node` over the relations its inputs are. `None`: the operator is never part of a relation.
pub(super) fn build(node: &LogicalPlan, inputs: &[Input<'_>]) -> Option<Result<Built, Reason>> {
    Some(match (node, inputs) {
        (LogicalPlan::Projection(projection), [input]) => project(projection, node, *input),
        (LogicalPlan::Filter(filter), [input]) => {
            let schema = filter.input.schema();
            rebind(&filter.predicate, |column| position(schema, column)).map(|predicate| Built {
                relation: Relation {
                    operator: Operator::Filter { input: Arc::clone(input.0), predicate },
                    schema: Arc::clone(&input.0.schema),
                },
                estimate: input.1.clone().filtered(),
                work: cost::filter(input.1),
            })
        }
        (LogicalPlan::Aggregate(aggregation), [input]) => aggregate(aggregation, node, *input),
        (LogicalPlan::Join(plan), [left, right]) => join(plan, node, *left, *right),
        (LogicalPlan::Union(_), inputs) => union(node, inputs),
        (LogicalPlan::Sort(Sort { expr, input: plan, fetch: Some(fetch) }), [input]) => {
            top(expr, plan.schema(), *fetch, *input)
        }
        (LogicalPlan::Limit(limit), [input]) => rows_of(limit).map(|fetch| Built {
            relation: Relation {
                operator: Operator::Limit { input: Arc::clone(input.0), fetch },
                schema: Arc::clone(&input.0.schema),
            },
            estimate: input.1.clone().at_most(fetch as f64),
            work: Work { there: 0.0, here: 0.0 },
        }),
        _ => return None,
    })
}

/// Whether the relation's rows come in an order that somebody may count on. What is over it stays
/// here, unless it makes rows of its own.
pub(super) fn is_ordered(relation: &Relation) -> bool {
    match &relation.operator {
        Operator::TopN { .. } => true,
        Operator::Filter { input, .. }
        | Operator::Project { input, .. }
        | Operator::Limit { input, .. } => is_ordered(input),
        Operator::Scan(_)
        | Operator::Aggregate { .. }
        | Operator::Join { .. }
        | Operator::Union { .. } => false,
    }
}

/// Whether there is more in it than filters and expressions over single tables, which scans do as
/// well, and at once.
pub(super) fn is_worthwhile(relation: &Relation) -> bool {
    match &relation.operator {
        Operator::Scan(_) => false,
        // Its inputs are read at once when each is read by itself.
        Operator::Union { .. } => false,
        Operator::Filter { input, .. } | Operator::Project { input, .. } => is_worthwhile(input),
        _ => true,
    }
}

fn project(projection: &Projection, node: &LogicalPlan, input: Input<'_>) -> Result<Built, Reason> {
    let schema = projection.input.schema();
    let exprs = projection.expr.iter().map(|expr| rebind(expr, |column| position(schema, column)));
    let exprs = exprs.collect::<Result<Vec<_>, _>>()?;
    let columns = exprs.iter().zip(node.schema().fields());
    let columns = columns.map(|(expr, field)| estimated(expr, field.data_type(), input.1));
    let estimate = Estimate { columns: columns.collect(), ..input.1.clone() };
    let values = exprs.iter().map(values).sum();
    Ok(Built {
        relation: Relation {
            operator: Operator::Project { input: Arc::clone(input.0), exprs },
            schema: Arc::clone(node.schema().inner()),
        },
        estimate,
        work: cost::project(input.1, values),
    })
}

fn aggregate(plan: &AggregatePlan, node: &LogicalPlan, input: Input<'_>) -> Result<Built, Reason> {
    let schema = plan.input.schema();
    let bind = |expr: &Expr| rebind(expr, |column| position(schema, column));
    if plan.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return Err(Reason::NotOnAllowList("grouping sets".to_owned()));
    }
    let groups = plan.group_expr.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    let mut aggregates = Vec::with_capacity(plan.aggr_expr.len());
    let mut work = 0;
    for expr in &plan.aggr_expr {
        let Expr::AggregateFunction(call) = unaliased(expr) else {
            return Err(Reason::NotOnAllowList(format!("{expr}")));
        };
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } =
            &call.params;
        if !order_by.is_empty() || null_treatment.is_some() {
            return Err(Reason::NotOnAllowList("an aggregate in an order".to_owned()));
        }
        let args = args.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let filter = filter.as_deref().map(bind).transpose()?;
        work += 1 + args.iter().chain(&filter).map(values).sum::<usize>();
        let function = call.func.name().to_owned();
        aggregates.push(Aggregate { function, args, distinct: *distinct, filter });
    }
    let fields = node.schema().fields();
    let keys = groups.iter().zip(fields.iter());
    let keys = keys.map(|(expr, field)| estimated(expr, field.data_type(), input.1)).collect();
    let made = fields.iter().skip(groups.len());
    let made = made.map(|field| of_type(field.data_type())).collect();
    work += groups.iter().map(values).sum::<usize>();
    let estimate = input.1.grouped(keys, made);
    Ok(Built {
        work: cost::aggregate(input.1, estimate.rows, work),
        estimate,
        relation: Relation {
            operator: Operator::Aggregate { input: Arc::clone(input.0), groups, aggregates },
            schema: Arc::clone(node.schema().inner()),
        },
    })
}

fn join(
    plan: &Join,
    node: &LogicalPlan,
    left: Input<'_>,
    right: Input<'_>,
) -> Result<Built, Reason> {
    if plan.null_aware {
        return Err(Reason::DifferentMeaning("NOT IN with NULLs".to_owned()));
    }
    if plan.null_equality == NullEquality::NullEqualsNull && !plan.on.is_empty() {
        return Err(Reason::NotOnAllowList("a join in which NULL equals NULL".to_owned()));
    }
    let (kind, swapped) = match plan.join_type {
        JoinType::Inner => (JoinKind::Inner, false),
        JoinType::Left => (JoinKind::Left, false),
        JoinType::Right => (JoinKind::Left, true),
        JoinType::LeftSemi => (JoinKind::Semi, false),
        JoinType::RightSemi => (JoinKind::Semi, true),
        JoinType::LeftAnti => (JoinKind::Anti, false),
        JoinType::RightAnti => (JoinKind::Anti, true),
        other => return Err(Reason::NotOnAllowList(format!("a {other} join"))),
    };
    // The side whose rows are kept is the left one of the relation.
    let (one, other) = if swapped { (right, left) } else { (left, right) };
    let (one_schema, other_schema) = match swapped {
        true => (plan.right.schema(), plan.left.schema()),
        false => (plan.left.schema(), plan.right.schema()),
    };
    let kept = one_schema.fields().len();
    let at = |column: &Column| match (
        one_schema.maybe_index_of_column(column),
        other_schema.maybe_index_of_column(column),
    ) {
        (Some(index), None) => Ok(index),
        (None, Some(index)) => Ok(kept + index),
        _ => Err(Reason::NotOnAllowList(format!("column {column} of either side"))),
    };
    let mut on = Vec::with_capacity(plan.on.len());
    let mut domains = Vec::with_capacity(plan.on.len());
    let mut partners = Vec::with_capacity(plan.on.len());
    let mut pairs = Vec::with_capacity(plan.on.len());
    for (a, b) in &plan.on {
        let (a, b) = if swapped { (b, a) } else { (a, b) };
        let a = rebind(a, |column| position(one_schema, column))?;
        let b = rebind(b, |column| position(other_schema, column))?;
        pairs.extend(place(&a).zip(place(&b)));
        let (known, partner) = (only_column(&a, one.1), only_column(&b, other.1));
        domains.push((known.and_then(|c| c.domain), partner.and_then(|c| c.domain)));
        partners.push((known.and_then(|c| c.domain), partner.and_then(|c| c.distinct)));
        let b = rebind(&b, |column| {
            let index = Relation::index_of(&column.name).map(|index| kept + index);
            index.ok_or_else(|| Reason::NotOnAllowList(format!("column {column}")))
        })?;
        on.push((a, b));
    }
    let filter = plan.filter.as_ref().map(|filter| rebind(filter, at)).transpose()?;
    let mut estimate = match kind {
        JoinKind::Inner | JoinKind::Left => {
            one.1.joined(other.1, &domains, &pairs, kind == JoinKind::Inner)
        }
        JoinKind::Semi => one.1.having_partner(other.1, &partners, false),
        JoinKind::Anti => one.1.having_partner(other.1, &partners, true),
    };
    if kind == JoinKind::Left {
        estimate.rows = estimate.rows.max(one.1.rows);
    }
    let work = match kind {
        JoinKind::Left => cost::outer_join(one.1, other.1, &estimate),
        _ => cost::join(one.1, other.1, &estimate),
    };
    let operator =
        Operator::Join { left: Arc::clone(one.0), right: Arc::clone(other.0), kind, on, filter };
    let schema = Arc::clone(node.schema().inner());
    if !(swapped && kind == JoinKind::Left) {
        return Ok(Built { relation: Relation { operator, schema }, estimate, work });
    }
    // The columns in the order they are expected in.
    let order: Vec<usize> = (kept..schema.fields().len()).chain(0..kept).collect();
    let fields = one.0.schema.fields().iter().chain(other.0.schema.fields());
    let fields: Vec<_> = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let joined = Relation { operator, schema: Arc::new(arrow::datatypes::Schema::new(fields)) };
    let columns = order.iter().filter_map(|&i| estimate.columns.get(i).cloned()).collect();
    Ok(Built {
        relation: Relation {
            operator: Operator::Project {
                input: Arc::new(joined),
                exprs: order.into_iter().map(Relation::column).collect(),
            },
            schema,
        },
        estimate: Estimate { columns, ..estimate },
        work,
    })
}

fn union(node: &LogicalPlan, inputs: &[Input<'_>]) -> Result<Built, Reason> {
    let types = |relation: &Relation| -> Vec<_> {
        relation.schema.fields().iter().map(|field| field.data_type().clone()).collect()
    };
    let schema = Arc::clone(node.schema().inner());
    let relation = Relation {
        operator: Operator::Union {
            inputs: inputs.iter().map(|input| Arc::clone(input.0)).collect(),
        },
        schema,
    };
    let wanted = types(&relation);
    if inputs.iter().any(|input| types(input.0) != wanted) {
        return Err(Reason::NotOnAllowList("UNION ALL of columns of other types".to_owned()));
    }
    let estimates: Vec<&Estimate> = inputs.iter().map(|input| input.1).collect();
    let estimate = Estimate::united(&estimates);
    Ok(Built { relation, work: cost::union(&estimate), estimate })
}

fn top(
    keys: &[datafusion::logical_expr::SortExpr],
    schema: &DFSchema,
    fetch: usize,
    input: Input<'_>,
) -> Result<Built, Reason> {
    let key = |sort: &datafusion::logical_expr::SortExpr| {
        Ok(SortKey {
            expr: rebind(&sort.expr, |column| position(schema, column))?,
            ascending: sort.asc,
            nulls_first: sort.nulls_first,
        })
    };
    let keys = keys.iter().map(key).collect::<Result<Vec<_>, Reason>>()?;
    Ok(Built {
        relation: Relation {
            operator: Operator::TopN { input: Arc::clone(input.0), keys, fetch },
            schema: Arc::clone(&input.0.schema),
        },
        estimate: input.1.clone().at_most(fetch as f64),
        work: cost::top(input.1),
    })
}

/// How many rows of its input a limit needs, those it skips among them.
pub(super) fn rows_of(limit: &Limit) -> Result<usize, Reason> {
    let unknown = || Reason::NotOnAllowList("a limit without a number".to_owned());
    let skip = match limit.get_skip_type() {
        Ok(SkipType::Literal(skip)) => skip,
        _ => return Err(unknown()),
    };
    match limit.get_fetch_type() {
        Ok(FetchType::Literal(Some(fetch))) => fetch.checked_add(skip).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

/// Whether a limit gives away rows that it does not yield.
pub(super) fn skips(limit: &Limit) -> bool {
    !matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)))
}

fn position(schema: &DFSchema, column: &Column) -> Result<usize, Reason> {
    schema
        .maybe_index_of_column(column)
        .ok_or_else(|| Reason::NotOnAllowList(format!("column {column} of another query")))
}

/// `expr` with its columns by position.
fn rebind(expr: &Expr, at: impl Fn(&Column) -> Result<usize, Reason>) -> Result<Expr, Reason> {
    if expr.is_volatile() {
        return Err(Reason::Volatile(expr.to_string()));
    }
    let mut unknown = None;
    let bound = unaliased(expr).clone().transform_down(|expr| match &expr {
        Expr::Column(column) => Ok(match at(column) {
            Ok(index) => Transformed::new(Relation::column(index), true, TreeNodeRecursion::Jump),
            Err(reason) => {
                unknown = Some(reason);
                Transformed::new(expr, false, TreeNodeRecursion::Stop)
            }
        }),
        _ => Ok::<_, DataFusionError>(Transformed::no(expr)),
    });
    match (unknown, bound) {
        (Some(reason), _) => Err(reason),
        (None, Ok(bound)) => Ok(bound.data),
        (None, Err(error)) => Err(Reason::NotOnAllowList(error.strip_backtrace())),
    }
}

/// An expression without the name it was given.
pub(super) fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// How many values an expression computes.
fn values(expr: &Expr) -> usize {
    let mut count = 0;
    let walked = expr.apply(|expr| {
        count += usize::from(!matches!(
            expr,
            Expr::Column(_) | Expr::Literal(..) | Expr::Alias(_) | Expr::Cast(_)
        ));
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the closure never fails");
    count
}

/// What is expected of the values of an expression: of one column, not more than it has.
fn estimated(
    expr: &Expr,
    data_type: &arrow::datatypes::DataType,
    input: &Estimate,
) -> ColumnEstimate {
    let column = place(expr).and_then(|index| input.columns.get(index)).cloned();
    column.unwrap_or_else(|| {
        let of = only_column(expr, input);
        let (distinct, domain) = (of.and_then(|c| c.distinct), of.and_then(|c| c.domain));
        ColumnEstimate { distinct, domain, ..of_type(data_type) }
    })
}

fn of_type(data_type: &arrow::datatypes::DataType) -> ColumnEstimate {
    let width = data_type.primitive_width();
    let width = width.map_or(24.0, |width| width as f64);
    ColumnEstimate::of_width(width)
}

/// Which of its input's columns an expression is, when it is no more than that.
pub(super) fn place(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(column) => Relation::index_of(&column.name),
        _ => None,
    }
}

/// The column that alone decides an expression's value: the expression has no more values.
fn only_column<'a>(expr: &Expr, input: &'a Estimate) -> Option<&'a ColumnEstimate> {
    let mut columns = expr.column_refs().into_iter();
    let only = columns.next()?;
    if columns.next().is_some() {
        return None;
    }
    input.columns.get(Relation::index_of(&only.name)?)
}
