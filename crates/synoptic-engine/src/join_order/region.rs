//! A tree of inner joins taken apart, and put together again in another order.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::{Column, Dependency, JoinType, NullEquality, Result, plan_err};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Expr, Filter, Join, JoinConstraint, LogicalPlan, Operator, Projection, binary_expr,
};

use super::graph::{Set, Tree};
use super::safe::is_safe;

/// Inner joins without their order: what is joined, and by which conditions.
#[derive(Debug, Default)]
pub(super) struct Region {
    /// In an order that does not depend on how the query was written.
    pub leaves: Vec<LogicalPlan>,
    pub conditions: Vec<Condition>,
}

/// One condition of a join.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub relations: Set,
    pub kind: Kind,
    /// The columns it needs, as the leaves call them.
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Values of some relations are equal to values of others.
    Equal((Expr, Set), (Expr, Set)),
    Other(Expr),
}

/// A condition as it was found.
enum Found {
    Equal(Expr, Expr),
    Other(Expr),
}

/// Whether `plan` is a join that may trade places with the inner joins around it, or such joins
/// below names and filters.
pub(super) fn is_region(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => is_free(join),
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
                && is_region(&projection.input)
        }
        LogicalPlan::Filter(filter) => {
            is_region(&filter.input) && is_safe(&filter.predicate, filter.input.schema())
        }
        _ => false,
    }
}

/// An inner join by equalities of values that can be computed for any row. One whose conditions can
/// fail keeps its place, and its inputs theirs: they would be computed for other rows.
fn is_free(join: &Join) -> bool {
    is_inner(join)
        && !join.null_aware
        && (join.null_equality == NullEquality::NullEqualsNothing || join.on.is_empty())
        && join.on.iter().all(|(left, right)| {
            is_safe(left, join.left.schema()) && is_safe(right, join.right.schema())
        })
        && join.filter.iter().all(|filter| is_safe(filter, &join.schema))
}

/// An inner join, or a semi join with a side in which each key is but once: DataFusion's optimiser
/// makes such of inner joins whose other columns nobody reads, and which of them depends on the
/// order they were written in.
fn is_inner(join: &Join) -> bool {
    let (side, is_left) = match join.join_type {
        JoinType::Inner => return true,
        JoinType::LeftSemi => (&join.right, false),
        JoinType::RightSemi => (&join.left, true),
        _ => return false,
    };
    let schema = side.schema();
    let keys: HashSet<usize> = join
        .on
        .iter()
        .filter_map(|(left, right)| match if is_left { left } else { right } {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        })
        .collect();
    schema.functional_dependencies().iter().any(|dependence| {
        dependence.mode == Dependency::Single
            && !dependence.source_indices.is_empty()
            && dependence.source_indices.iter().all(|index| keys.contains(index))
    })
}

impl Region {
    /// Takes `plan` apart.
    ///
    /// # Errors
    /// When two relations have a column of the same name, so that conditions cannot be told apart.
    pub fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut region = Self::default();
        let mut found = Vec::new();
        region.take(plan, &mut found);
        region.leaves.sort_by_cached_key(|leaf| leaf.display_indent().to_string());
        if region.leaves.len() > Set::CAPACITY {
            return plan_err!("too many relations");
        }
        let mut names = HashSet::new();
        for column in region.leaves.iter().flat_map(|leaf| leaf.schema().columns()) {
            if !names.insert(column.clone()) {
                return plan_err!("column {column} of two relations");
            }
        }
        for condition in found {
            let condition = region.condition(condition)?;
            region.conditions.push(condition);
        }
        region.conditions.sort_by_cached_key(|condition| (condition.relations, condition.text()));
        Ok(region)
    }

    fn take(&mut self, plan: &LogicalPlan, found: &mut Vec<Found>) {
        match plan {
            LogicalPlan::Join(join) if is_free(join) => {
                self.take(&join.left, found);
                self.take(&join.right, found);
                found.extend(join.on.iter().map(|(l, r)| Found::Equal(l.clone(), r.clone())));
                found.extend(join.filter.iter().flat_map(others));
            }
            LogicalPlan::Projection(projection) if is_region(plan) => {
                self.take(&projection.input, found);
            }
            LogicalPlan::Filter(filter) if is_region(plan) => {
                self.take(&filter.input, found);
                found.extend(others(&filter.predicate));
            }
            leaf => self.leaves.push(leaf.clone()),
        }
    }

    fn condition(&self, found: Found) -> Result<Condition> {
        let mut columns = Vec::new();
        let mut resolve = |expr: &Expr| {
            let mut set = Set::default();
            for column in expr.column_refs() {
                let mut owners = self.leaves.iter().enumerate().filter_map(|(index, leaf)| {
                    let at = leaf.schema().maybe_index_of_column(column)?;
                    Some((index, Column::from(leaf.schema().qualified_field(at))))
                });
                let (Some((owner, column)), None) = (owners.next(), owners.next()) else {
                    return plan_err!("column {column} of no relation or of several");
                };
                set = set.union(Set::of(owner));
                columns.push(column);
            }
            match set.is_empty() {
                true => plan_err!("a condition without columns"),
                false => Ok(set),
            }
        };
        let (relations, kind) = match found {
            Found::Equal(left, right) => {
                let (l, r) = (resolve(&left)?, resolve(&right)?);
                // In one order, however it was written.
                let mut sides = [(left, l), (right, r)];
                sides.sort_by_cached_key(|(expr, set)| (*set, expr.to_string()));
                let [one, other] = sides;
                (l.union(r), Kind::Equal(one, other))
            }
            Found::Other(expr) => (resolve(&expr)?, Kind::Other(expr)),
        };
        Ok(Condition { relations, kind, columns })
    }

    /// The joins in the order of `tree`, yielding the columns of `original` in its order.
    ///
    /// # Errors
    /// When names of columns clash, which is a bug.
    pub fn build(&self, tree: &Tree, original: &LogicalPlan) -> Result<LogicalPlan> {
        let wanted = original.schema().columns();
        let (plan, _) = self.part(tree, &wanted.iter().cloned().collect())?;
        if plan.schema().columns() == wanted {
            return Ok(plan);
        }
        let exprs = wanted.into_iter().map(Expr::Column).collect();
        let schema = Arc::clone(original.schema());
        Ok(LogicalPlan::Projection(Projection::try_new_with_schema(exprs, Arc::new(plan), schema)?))
    }

    fn part(&self, tree: &Tree, wanted: &HashSet<Column>) -> Result<(LogicalPlan, Set)> {
        match tree {
            Tree::Leaf(index) => {
                let set = Set::of(*index);
                let Some(leaf) = self.leaves.get(*index) else {
                    return plan_err!("there is no relation {index}");
                };
                let own = self.conditions.iter().filter(|condition| condition.relations == set);
                let plan = match conjunction(own.map(Condition::expr)) {
                    Some(filter) => {
                        LogicalPlan::Filter(Filter::try_new(filter, Arc::new(leaf.clone()))?)
                    }
                    None => leaf.clone(),
                };
                Ok((self.only_needed(plan, set, wanted)?, set))
            }
            Tree::Join(sides) => {
                let (left, one) = self.part(&sides.0, wanted)?;
                let (right, other) = self.part(&sides.1, wanted)?;
                let set = one.union(other);
                let (mut on, mut filters) = (Vec::new(), Vec::new());
                let crossing = self.conditions.iter().filter(|condition| {
                    let relations = condition.relations;
                    relations.is_within(set)
                        && !relations.is_within(one)
                        && !relations.is_within(other)
                });
                for condition in crossing {
                    match &condition.kind {
                        Kind::Equal((a, x), (b, y)) if x.is_within(one) && y.is_within(other) => {
                            on.push((a.clone(), b.clone()));
                        }
                        Kind::Equal((a, x), (b, y)) if x.is_within(other) && y.is_within(one) => {
                            on.push((b.clone(), a.clone()));
                        }
                        _ => filters.push(condition.expr()),
                    }
                }
                let join = Join::try_new(
                    Arc::new(left),
                    Arc::new(right),
                    on,
                    conjunction(filters),
                    JoinType::Inner,
                    JoinConstraint::On,
                    NullEquality::NullEqualsNothing,
                    false,
                )?;
                Ok((self.only_needed(LogicalPlan::Join(join), set, wanted)?, set))
            }
        }
    }

    /// Without the columns that nobody above needs. All, when it is none: only their number counts
    /// then, and the plan's top sees to it.
    fn only_needed(
        &self,
        plan: LogicalPlan,
        set: Set,
        wanted: &HashSet<Column>,
    ) -> Result<LogicalPlan> {
        let later = self.conditions.iter().filter(|condition| !condition.relations.is_within(set));
        let later: HashSet<&Column> = later.flat_map(|condition| &condition.columns).collect();
        let columns = plan.schema().columns();
        let all = columns.len();
        let kept: Vec<_> = columns
            .into_iter()
            .filter(|column| wanted.contains(column) || later.contains(column))
            .map(Expr::Column)
            .collect();
        match kept.len() {
            0 => Ok(plan),
            some if some == all => Ok(plan),
            _ => Ok(LogicalPlan::Projection(Projection::try_new(kept, Arc::new(plan))?)),
        }
    }
}

impl Condition {
    fn expr(&self) -> Expr {
        match &self.kind {
            Kind::Equal((left, _), (right, _)) => {
                binary_expr(left.clone(), Operator::Eq, right.clone())
            }
            Kind::Other(expr) => expr.clone(),
        }
    }

    fn text(&self) -> String {
        self.expr().to_string()
    }
}

fn others(filter: &Expr) -> Vec<Found> {
    split_conjunction(filter).into_iter().map(|expr| Found::Other(expr.clone())).collect()
}
