//! Candidate relations: every operator over every column, each with the plan that says what is
//! right.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::{JoinType, Result};
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, lit, when};
use datafusion::prelude::{DataFrame, SessionContext};

use crate::{Aggregate, Fragment, JoinKind, Operator, Relation, SortKey, TableDef};

/// The aggregates that are asked of every source, over every column they take.
pub const AGGREGATES: [&str; 9] =
    ["count", "sum", "avg", "min", "max", "bool_and", "bool_or", "stddev", "median"];

/// The joins.
pub const JOINS: [JoinKind; 4] = [JoinKind::Inner, JoinKind::Left, JoinKind::Semi, JoinKind::Anti];

/// What a candidate is about, as capabilities name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Aggregate(&'static str),
    Join(JoinKind),
    Filter,
    Project,
    Union,
    TopN,
    /// Any so many rows of the plan's are right.
    Limit(usize),
}

/// A relation, and a plan over the same rows that DataFusion runs.
#[derive(Clone)]
pub struct Candidate {
    pub about: About,
    pub relation: Arc<Relation>,
    frame: DataFrame,
}

/// Makes candidates of one table.
pub struct Candidates<'a> {
    pub def: &'a Arc<TableDef>,
    /// All of its rows.
    pub whole: &'a RecordBatch,
}

fn column(index: usize) -> Expr {
    Relation::column(index)
}

/// The columns of a frame by place, as a relation names them, from `first` on.
fn numbered(frame: DataFrame, first: usize) -> Result<DataFrame> {
    let columns = frame.schema().columns().into_iter().enumerate();
    let columns: Vec<Expr> =
        columns.map(|(i, c)| Expr::Column(c).alias(format!("c{}", first + i))).collect();
    frame.select(columns)
}

impl Candidate {
    /// The rows that are right.
    ///
    /// # Errors
    /// As DataFusion has them.
    pub async fn expected(&self) -> Result<RecordBatch> {
        let batches = self.frame.clone().collect().await?;
        Ok(arrow::compute::concat_batches(&self.relation.schema, &batches)?)
    }

    fn of(about: About, operator: Operator, frame: Result<DataFrame>) -> Option<Self> {
        // What DataFusion does not plan, a source is never asked.
        let frame = numbered(frame.ok()?, 0).ok()?;
        let schema: SchemaRef = Arc::new(Schema::clone(frame.schema().as_arrow()));
        Some(Self { about, relation: Arc::new(Relation { operator, schema }), frame })
    }

    fn filter(&self, predicate: Expr) -> Option<Self> {
        let frame = self.frame.clone().filter(predicate.clone());
        let input = Arc::clone(&self.relation);
        Self::of(About::Filter, Operator::Filter { input, predicate }, frame)
    }

    fn project(&self, exprs: Vec<Expr>) -> Option<Self> {
        let named = exprs.iter().enumerate().map(|(i, expr)| expr.clone().alias(format!("e{i}")));
        let frame = self.frame.clone().select(named.collect::<Vec<_>>());
        let input = Arc::clone(&self.relation);
        Self::of(About::Project, Operator::Project { input, exprs }, frame)
    }

    fn aggregate(
        &self,
        groups: Vec<Expr>,
        function: &'static str,
        arg: Expr,
        distinct: bool,
        filter: Option<Expr>,
    ) -> Option<Self> {
        let functions = all_default_aggregate_functions();
        let udf = functions.into_iter().find(|udf| udf.name() == function)?;
        let only = filter.clone().map(Box::new);
        let call =
            AggregateFunction::new_udf(udf, vec![arg.clone()], distinct, only, Vec::new(), None);
        let call = Expr::AggregateFunction(call);
        let frame = self.frame.clone().aggregate(groups.clone(), vec![call]);
        let aggregate =
            Aggregate { function: function.to_owned(), args: vec![arg], distinct, filter };
        let input = Arc::clone(&self.relation);
        let operator = Operator::Aggregate { input, groups, aggregates: vec![aggregate] };
        Self::of(About::Aggregate(function), operator, frame)
    }

    /// `on` and `filter` over the columns of both sides.
    fn join(
        &self,
        right: &Self,
        kind: JoinKind,
        on: Vec<(Expr, Expr)>,
        filter: Option<Expr>,
    ) -> Option<Self> {
        let join_type = match kind {
            JoinKind::Inner => JoinType::Inner,
            JoinKind::Left => JoinType::Left,
            JoinKind::Semi => JoinType::LeftSemi,
            JoinKind::Anti => JoinType::LeftAnti,
        };
        let kept = self.relation.schema.fields().len();
        let conditions = on.iter().map(|(a, b)| a.clone().eq(b.clone())).chain(filter.clone());
        let other = numbered(right.frame.clone(), kept).ok()?;
        let frame = self.frame.clone().join_on(other, join_type, conditions);
        let (left, right) = (Arc::clone(&self.relation), Arc::clone(&right.relation));
        Self::of(About::Join(kind), Operator::Join { left, right, kind, on, filter }, frame)
    }

    fn union(&self, other: &Self) -> Option<Self> {
        let frame = self.frame.clone().union(other.frame.clone());
        let inputs = vec![Arc::clone(&self.relation), Arc::clone(&other.relation)];
        Self::of(About::Union, Operator::Union { inputs }, frame)
    }

    fn top(&self, keys: Vec<SortKey>, fetch: usize) -> Option<Self> {
        let sort = keys.iter().map(|key| key.expr.clone().sort(key.ascending, key.nulls_first));
        let frame = self.frame.clone().sort(sort.collect());
        let frame = frame.and_then(|frame| frame.limit(0, Some(fetch)));
        let input = Arc::clone(&self.relation);
        Self::of(About::TopN, Operator::TopN { input, keys, fetch }, frame)
    }

    /// Its frame has all rows: which of them a limit keeps is free.
    fn limit(&self, fetch: usize) -> Option<Self> {
        let input = Arc::clone(&self.relation);
        let operator = Operator::Limit { input, fetch };
        Self::of(About::Limit(fetch), operator, Ok(self.frame.clone()))
    }
}

impl Candidates<'_> {
    /// A scan under `filters`, which are over the table's columns.
    fn scan(&self, filters: Vec<Expr>) -> Result<Candidate> {
        let mut fragment = Fragment::table(Arc::clone(self.def));
        fragment.filters.clone_from(&filters);
        let schema = fragment.schema();
        let frame = SessionContext::new().read_batch(self.whole.clone())?;
        let plan = filters
            .into_iter()
            .try_fold(LogicalPlanBuilder::from(frame.logical_plan().clone()), |plan, filter| {
                plan.filter(filter)
            })?;
        let (state, _) = frame.into_parts();
        let frame = numbered(DataFrame::new(state, plan.build()?), 0)?;
        let relation = Arc::new(Relation { operator: Operator::Scan(fragment), schema });
        Ok(Candidate { about: About::Filter, relation, frame })
    }

    /// All of them. `nothing` is a filter that the source applies exactly and that keeps no row.
    pub fn all(&self, nothing: Option<Expr>) -> Result<Vec<Candidate>> {
        let base = self.scan(Vec::new())?;
        let mut found = Vec::new();
        let Some(id) = self.def.schema.index_of("id").ok() else { return Ok(found) };
        let width = self.def.schema.fields().len();
        let by_id = |ascending| SortKey { expr: column(id), ascending, nulls_first: false };
        let flag = self.def.schema.index_of("b").ok().map(column);
        for index in 0..width {
            let field = self.def.schema.field(index);
            let x = column(index);
            self.aggregates(&base, &x, flag.as_ref(), &mut found);
            if let Some(nothing) = &nothing {
                let empty = self.scan(vec![nothing.clone()])?;
                for function in AGGREGATES {
                    found.extend(empty.aggregate(vec![], function, x.clone(), false, None));
                    found.extend(empty.aggregate(
                        vec![x.clone()],
                        function,
                        x.clone(),
                        false,
                        None,
                    ));
                }
            }
            for kind in JOINS {
                let (same, other) = (column(width + index), column(width + id));
                let on = vec![(x.clone(), same.clone())];
                found.extend(base.join(&base, kind, on.clone(), None));
                let less = column(id).lt(other.clone());
                found.extend(base.join(&base, kind, on.clone(), Some(less)));
                let both = [on, vec![(column(id), other)]].concat();
                found.extend(base.join(&base, kind, both, None));
            }
            for (ascending, nulls_first) in
                [(true, true), (true, false), (false, true), (false, false)]
            {
                let key = SortKey { expr: x.clone(), ascending, nulls_first };
                found.extend(base.top(vec![key, by_id(ascending)], 7));
            }
            found.extend(base.filter(x.clone().is_not_null().and(column(id).gt(lit(3_i64)))));
            found.extend(base.project(vec![x.clone(), column(id), x.clone().is_null()]));
            let otherwise = when(column(id).lt(lit(9_i64)), x.clone()).end();
            found.extend(otherwise.ok().and_then(|case| base.project(vec![case, column(id)])));
            let both = [x.clone(), column(id)];
            let united = base.project(both.to_vec()).and_then(|rows| {
                let few = base.filter(column(id).lt(lit(5_i64)))?.project(both.to_vec())?;
                rows.union(&few)
            });
            if let Some(united) = united {
                let count = |groups| united.aggregate(groups, "count", column(1), false, None);
                found.extend(count(vec![column(0)]));
                found.extend(count(vec![]));
                found.extend(united.join(
                    &base,
                    JoinKind::Semi,
                    vec![(column(0), column(2 + index))],
                    None,
                ));
                found.extend(united.top(
                    vec![
                        SortKey { expr: column(0), ..by_id(true) },
                        SortKey { expr: column(1), ..by_id(true) },
                    ],
                    7,
                ));
                found.push(united);
            }
            if field.data_type() == &DataType::Utf8 {
                let text = x.clone().eq(lit("a")).or(x.clone().gt(lit("Z")));
                found.extend(base.filter(text));
            }
        }
        for fetch in [0, 1, 5, 1000] {
            found.extend(base.filter(column(id).gt(lit(2_i64))).and_then(|f| f.limit(fetch)));
        }
        self.stacked(&base, id, width, &mut found);
        Ok(found)
    }

    /// Aggregates of `x`: of everything, of groups, of few rows, and over groups of `x`.
    fn aggregates(
        &self,
        base: &Candidate,
        x: &Expr,
        flag: Option<&Expr>,
        found: &mut Vec<Candidate>,
    ) {
        for function in AGGREGATES {
            for distinct in [false, true] {
                found.extend(base.aggregate(vec![], function, x.clone(), distinct, None));
            }
            if let Some(flag) = flag {
                let groups = vec![flag.clone()];
                found.extend(base.aggregate(groups, function, x.clone(), false, None));
                let only = Some(flag.clone());
                found.extend(base.aggregate(vec![], function, x.clone(), false, only));
            }
            let wide = cast(x.clone(), DataType::Int64);
            found.extend(base.aggregate(vec![], function, wide, false, None));
        }
        let rows = lit(1_i64);
        found.extend(base.aggregate(vec![x.clone()], "count", rows.clone(), false, None));
        let groups = flag.filter(|flag| *flag != x).map(|flag| vec![x.clone(), flag.clone()]);
        found.extend(groups.and_then(|g| base.aggregate(g, "count", rows, false, None)));
    }

    /// Operators over operators.
    fn stacked(&self, base: &Candidate, id: usize, width: usize, found: &mut Vec<Candidate>) {
        let rows = || lit(1_i64);
        for index in 0..width {
            let x = column(index);
            let groups = base.aggregate(vec![x.clone()], "count", rows(), false, None);
            let Some(groups) = groups else { continue };
            // HAVING, the greatest groups, groups of groups, groups joined to rows.
            found.extend(groups.filter(column(1).gt(lit(1_i64))));
            let most = SortKey { expr: column(1), ascending: false, nulls_first: true };
            let key = SortKey { expr: column(0), ascending: true, nulls_first: true };
            found.extend(groups.top(vec![most, key], 3));
            found.extend(groups.aggregate(vec![column(1)], "count", rows(), false, None));
            found.extend(groups.aggregate(vec![], "max", column(1), false, None));
            found.extend(groups.aggregate(vec![], "sum", column(1), false, None));
            for kind in JOINS {
                let on = vec![(x.clone(), column(width))];
                found.extend(base.join(&groups, kind, on, None));
            }
            let on = vec![(x.clone(), column(width + index))];
            let joined = base.join(base, JoinKind::Left, on, None);
            found.extend(joined.and_then(|joined| {
                joined.aggregate(vec![column(index)], "count", column(width + id), false, None)
            }));
        }
    }
}

/// The columns of a candidate's relation that a reason or a failure shows.
pub fn shown(relation: &Relation) -> String {
    let inputs: Vec<String> = relation.inputs().into_iter().map(|input| shown(input)).collect();
    let inputs = inputs.join(", ");
    let list =
        |exprs: &[Expr]| exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match &relation.operator {
        Operator::Scan(fragment) => format!("scan[{}]", list(&fragment.filters)),
        Operator::Filter { predicate, .. } => format!("filter[{predicate}]({inputs})"),
        Operator::Project { exprs, .. } => format!("project[{}]({inputs})", list(exprs)),
        Operator::Aggregate { groups, aggregates, .. } => {
            let calls = aggregates.iter().map(|call| {
                let distinct = if call.distinct { "distinct " } else { "" };
                let filter = call.filter.as_ref().map(|f| format!(" where {f}"));
                let filter = filter.unwrap_or_default();
                format!("{}({distinct}{}{filter})", call.function, list(&call.args))
            });
            let calls = calls.collect::<Vec<_>>().join(", ");
            format!("aggregate[{}; {calls}]({inputs})", list(groups))
        }
        Operator::Join { kind, on, filter, .. } => {
            let on = on.iter().map(|(a, b)| format!("{a} = {b}")).collect::<Vec<_>>().join(", ");
            let filter = filter.as_ref().map(|f| format!("; {f}")).unwrap_or_default();
            format!("{kind:?} join[{on}{filter}]({inputs})")
        }
        Operator::Union { .. } => format!("union({inputs})"),
        Operator::TopN { keys, fetch, .. } => {
            let keys = keys
                .iter()
                .map(|key| format!("{} asc={} first={}", key.expr, key.ascending, key.nulls_first));
            format!("top[{fetch}; {}]({inputs})", keys.collect::<Vec<_>>().join(", "))
        }
        Operator::Limit { fetch, .. } => format!("limit[{fetch}]({inputs})"),
    }
}
