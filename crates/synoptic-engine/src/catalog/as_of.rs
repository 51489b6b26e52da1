//! A table of a source as it was: its rows that were in force at a moment, by the columns that the
//! configuration names in the source's `system_time`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, Result, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType, lit};
use datafusion::physical_plan::ExecutionPlan;
use synoptic_catalog::SystemTime;
use synoptic_types::{ErrorCode, TableVersion};

use crate::error::Error;

use super::table::SourceTable;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A table at a moment. It is a view: the planner puts its plan in its place, so the condition is
/// one like any other, and goes to the source.
pub(crate) struct AsOfTable {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl AsOfTable {
    /// `name` is how a statement finds the table again.
    ///
    /// # Errors
    /// `[UNSUPPORTED]` when the table does not keep its earlier states, `[UNKNOWN_COLUMN]` when it
    /// lacks one of the columns, `[DATA]` when they are no times.
    pub(crate) fn new(
        table: SourceTable,
        name: TableReference,
        columns: Option<&SystemTime>,
        version: TableVersion,
    ) -> Result<Self, Error> {
        let place = format!(
            "source '{}', table {}",
            table.entry().source().name(),
            table.definition().name()
        );
        let columns = columns.ok_or_else(|| {
            Error::new(
                ErrorCode::Unsupported,
                format!(
                    "{place}: it cannot be read as of a time or version: its source shows the present only; \
                     when it has columns that say from when until when a row was in force, name \
                     them in the source's system_time"
                ),
            )
        })?;
        let moment = version.moment().ok_or_else(|| {
            Error::new(
                ErrorCode::Unsupported,
                format!("{place}: its states have no numbers; write FOR SYSTEM_TIME AS OF"),
            )
        })?;
        let schema = table.schema();
        let bound = |column: &str| {
            let place = || format!("{place}: system_time names the column '{column}'");
            let field = schema.field_with_name(column).map_err(|_| {
                Error::new(ErrorCode::UnknownColumn, format!("{}, which is not there", place()))
            })?;
            let moment = in_type(moment, field.data_type()).ok_or_else(|| {
                let message = format!(
                    "{}, whose type {} is no timestamp or date that holds {moment}",
                    place(),
                    field.data_type()
                );
                Error::new(ErrorCode::Data, message)
            })?;
            Ok::<_, Error>((Expr::Column(Column::new(Some(name.clone()), column)), lit(moment)))
        };
        let (from, since) = bound(&columns.from)?;
        let (to, until) = bound(&columns.to)?;
        let in_force = from.lt_eq(since).and(to.clone().is_null().or(to.gt(until)));
        let source = provider_as_source(Arc::new(table));
        let plan = LogicalPlanBuilder::scan(name, source, None)?.filter(in_force)?.build()?;
        Ok(Self { schema, plan })
    }
}

/// The latest value of a type that is not after `moment`: a value of the type is at or before the
/// one exactly when it is at or before the other.
fn in_type(moment: DateTime<Utc>, data_type: &DataType) -> Option<ScalarValue> {
    let nanos = i128::from(moment.timestamp()) * NANOS_PER_SECOND
        + i128::from(moment.timestamp_subsec_nanos());
    let units = |unit: i128| i64::try_from(nanos.div_euclid(unit)).ok();
    Some(match data_type {
        DataType::Timestamp(unit, zone) => {
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => {
                    ScalarValue::TimestampSecond(Some(units(NANOS_PER_SECOND)?), zone)
                }
                TimeUnit::Millisecond => {
                    ScalarValue::TimestampMillisecond(Some(units(1_000_000)?), zone)
                }
                TimeUnit::Microsecond => {
                    ScalarValue::TimestampMicrosecond(Some(units(1_000)?), zone)
                }
                TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(units(1)?), zone),
            }
        }
        DataType::Date32 => {
            let days = units(24 * 3600 * NANOS_PER_SECOND)?;
            ScalarValue::Date32(Some(i32::try_from(days).ok()?))
        }
        _ => return None,
    })
}

#[async_trait]
impl TableProvider for AsOfTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut plan = LogicalPlanBuilder::from(self.plan.clone());
        if let Some(columns) = projection {
            plan = plan.select(columns.iter().copied())?;
        }
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        state.create_physical_plan(&plan.build()?).await
    }
}

impl fmt::Debug for AsOfTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsOfTable({})", self.plan.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_rounded_down_in_every_type() {
        let moment = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
        let before = moment("1969-12-31T23:59:59.999999999Z");
        let timestamp = |unit| DataType::Timestamp(unit, None);
        for (data_type, expected) in [
            (timestamp(TimeUnit::Second), ScalarValue::TimestampSecond(Some(-1), None)),
            (timestamp(TimeUnit::Millisecond), ScalarValue::TimestampMillisecond(Some(-1), None)),
            (timestamp(TimeUnit::Microsecond), ScalarValue::TimestampMicrosecond(Some(-1), None)),
            (timestamp(TimeUnit::Nanosecond), ScalarValue::TimestampNanosecond(Some(-1), None)),
            (DataType::Date32, ScalarValue::Date32(Some(-1))),
        ] {
            assert_eq!(in_type(before, &data_type), Some(expected));
        }
        assert_eq!(in_type(before, &DataType::Utf8), None);
        let far = moment("9999-01-01T00:00:00Z");
        assert_eq!(in_type(far, &timestamp(TimeUnit::Nanosecond)), None);
        assert!(in_type(far, &timestamp(TimeUnit::Microsecond)).is_some());
    }
}
