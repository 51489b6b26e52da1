//! UPDATE and DELETE as their sources take them: constants converted exactly, conditions and values
//! that the source applies exactly as we would, or an error that names what it would not.

use std::sync::Arc;

use arrow::array::Array as _;
use datafusion::catalog::TableProvider;
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::TreeNode as _;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan};
use synoptic_source::{Assigned, Assignment, Change, ChangeRequest, Pushdown, SourceError};
use synoptic_types::ErrorCode;

use crate::catalog::SourceTable;
use crate::error::{Error, Result};

use super::{Target, exact, places};

/// What an analysed query of the values over the rows is made of.
struct Parts {
    values: Vec<Expr>,
    schema: DFSchemaRef,
    filters: Vec<Expr>,
    table: Arc<dyn TableProvider>,
}

impl Target {
    /// Makes the UPDATE of `columns`, or the DELETE, ready that `plan` is the query of.
    ///
    /// # Errors
    /// `[UNSUPPORTED]` naming the expression that the source does not apply as we would.
    pub(crate) fn change(plan: LogicalPlan, columns: Option<&[String]>) -> Result<Self> {
        let verb = if columns.is_some() { "UPDATE" } else { "DELETE" };
        let Parts { values, schema, filters, table } = parts(plan, verb)?;
        let table = table.downcast_ref::<SourceTable>().ok_or_else(|| {
            Error::new(
                ErrorCode::PermissionDenied,
                format!("{verb}: it is a table of the system, which nobody writes to"),
            )
        })?;
        let (source, definition) = (table.entry().source(), table.definition());
        let place = |e: SourceError| e.in_source(source.name()).in_table(definition.name());
        for filter in &filters {
            let reason = match table.decide(filter) {
                Pushdown::Exact => continue,
                Pushdown::Inexact(reason) | Pushdown::No(reason) => reason,
            };
            return Err(Error::new(
                ErrorCode::Unsupported,
                format!(
                    "source '{}', table {}: {verb}: the condition {filter} is not applied at the \
                     source exactly as here: {reason}",
                    source.name(),
                    definition.name()
                ),
            ));
        }
        let change = match columns {
            None => Change::Delete,
            Some(columns) => {
                let mut assignments = Vec::with_capacity(columns.len());
                let places = places(definition, columns, source.name())?;
                for (column, value) in places.into_iter().zip(values) {
                    let field = definition.schema.field(column);
                    let misfit =
                        |why: String| place(SourceError::data(why)).in_column(field.name());
                    let value = match value {
                        Expr::Literal(value, _) => {
                            let array = value.to_array()?;
                            let array =
                                exact::convert(&array, field.data_type()).map_err(misfit)?;
                            if !field.is_nullable() && array.logical_null_count() > 0 {
                                let why = "it is set to NULL, and the column is NOT NULL";
                                return Err(misfit(why.to_owned()).into());
                            }
                            Assigned::Constant(array)
                        }
                        value => {
                            let from = value.get_type(&schema)?;
                            exact::check(&from, field.data_type()).map_err(misfit)?;
                            Assigned::Expr(value)
                        }
                    };
                    assignments.push(Assignment { column, value });
                }
                Change::Update(assignments)
            }
        };
        let request = ChangeRequest { table: Arc::clone(definition), change, filters };
        Ok(Self {
            source: source.name().clone(),
            table: definition.name().clone(),
            columns: Vec::new(),
            prepared: source.prepare_change(request).map_err(place)?,
        })
    }

    /// Where the write goes and the text that is sent, for EXPLAIN.
    pub(crate) fn explained(&self) -> String {
        format!(
            "RemoteWrite: source={}, copy=primary, table={}, text={}",
            self.source,
            self.table,
            self.prepared.remote_text()
        )
    }
}

fn parts(plan: LogicalPlan, verb: &str) -> Result<Parts> {
    let other = || {
        Error::new(
            ErrorCode::Unsupported,
            format!("{verb} takes conditions and values over the table's own columns only"),
        )
    };
    let LogicalPlan::Projection(projection) = plan else { return Err(other()) };
    let values = projection.expr.into_iter().map(Expr::unalias_nested);
    let values: Vec<_> = values.map(|value| value.data).collect();
    let schema = Arc::clone(projection.input.schema());
    let mut filters = Vec::new();
    let mut input = projection.input;
    let table = loop {
        input = match Arc::unwrap_or_clone(input) {
            LogicalPlan::Filter(filter) => {
                filters.extend(split_conjunction_owned(filter.predicate));
                filter.input
            }
            LogicalPlan::SubqueryAlias(alias) => alias.input,
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
                filters.extend(scan.filters);
                break source_as_provider(&scan.source)?;
            }
            _ => return Err(other()),
        };
    };
    for expr in values.iter().chain(&filters) {
        if expr.exists(|part| Ok(is_subquery(part)))? {
            return Err(Error::new(
                ErrorCode::Unsupported,
                format!("{verb}: the subquery in {expr} is not supported; ask for its rows first"),
            ));
        }
    }
    Ok(Parts { values, schema, filters, table })
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::ScalarSubquery(_)
            | Expr::InSubquery(_)
            | Expr::Exists(_)
            | Expr::SetComparison(_)
            | Expr::OuterReferenceColumn(..)
    )
}
