//! The metadata commands: what is there to query.
//!
//! Their tickets are the commands themselves, so that every server answers them at any time, and
//! nothing is asked of a source before DoGet. A source that does not answer is left out.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder};
use arrow_flight::sql::{
    Command, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables,
};
use futures::StreamExt;
use synoptic_engine::{Engine, TableEntry};
use tokio::time::Instant;

use crate::edge::{self, Types};
use crate::options::FlightOptions;
use crate::pattern::passes;
use crate::status::{Fault, Result};
use crate::{sql_info, xdbc};

/// Tables that are described at once.
const DESCRIBED_AT_ONCE: usize = 16;

/// The kinds of tables there are, sorted.
const TABLE_TYPES: [&str; 3] = ["SYSTEM TABLE", "TABLE", "VIEW"];

/// The schema of a metadata command's answer; none for other commands. Asks no source.
pub(crate) fn schema_of(command: &Command) -> Result<Option<SchemaRef>> {
    Ok(Some(match command {
        Command::CommandGetCatalogs(_) => GetCatalogsBuilder::new().schema(),
        Command::CommandGetDbSchemas(command) => command.clone().into_builder().schema(),
        Command::CommandGetTables(command) => command.clone().into_builder().schema(),
        Command::CommandGetTableTypes(command) => command.into_builder().schema(),
        Command::CommandGetSqlInfo(_) => sql_info::schema(),
        Command::CommandGetXdbcTypeInfo(_) => xdbc::types()?.schema(),
        Command::CommandGetPrimaryKeys(_) => Arc::clone(&PRIMARY_KEYS),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => Arc::clone(&FOREIGN_KEYS),
        _ => return Ok(None),
    }))
}

/// The answer to a metadata command; none for other commands.
pub(crate) async fn answer(
    engine: &Arc<Engine>,
    options: &FlightOptions,
    command: &Command,
    types: Types,
) -> Result<Option<RecordBatch>> {
    Ok(Some(match command {
        Command::CommandGetCatalogs(_) => {
            let mut builder = GetCatalogsBuilder::new();
            engine.catalogs().into_iter().for_each(|catalog| builder.append(catalog));
            builder.build().map_err(broken)?
        }
        Command::CommandGetDbSchemas(command) => schemas(engine, command).await?,
        Command::CommandGetTables(command) => tables(engine, options, command, types).await?,
        Command::CommandGetTableTypes(command) => table_types(*command)?,
        Command::CommandGetSqlInfo(command) => sql_info::answer(options, &command.info)?,
        Command::CommandGetXdbcTypeInfo(command) => {
            xdbc::types()?.record_batch(command.data_type).map_err(broken)?
        }
        Command::CommandGetPrimaryKeys(command) => primary_keys(engine, options, command).await?,
        // No source tells its foreign keys in this version.
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => RecordBatch::new_empty(Arc::clone(&FOREIGN_KEYS)),
        _ => return Ok(None),
    }))
}

async fn schemas(engine: &Arc<Engine>, command: &CommandGetDbSchemas) -> Result<RecordBatch> {
    // The filters are ours: those of the builder do not know `\` nor that empty means none.
    let mut builder = GetDbSchemasBuilder::new(None::<String>, None::<String>);
    for (catalog, schema) in engine.schemas().await {
        if in_catalog(command.catalog.as_deref(), &catalog)
            && passes(command.db_schema_filter_pattern.as_deref(), &schema)
        {
            builder.append(catalog, schema);
        }
    }
    builder.build().map_err(broken)
}

async fn tables(
    engine: &Arc<Engine>,
    options: &FlightOptions,
    command: &CommandGetTables,
    types: Types,
) -> Result<RecordBatch> {
    let none = None::<String>;
    let mut builder =
        GetTablesBuilder::new(none.clone(), none.clone(), none, [""; 0], command.include_schema);
    let wanted: Vec<TableEntry> = engine
        .tables()
        .await
        .into_iter()
        .filter(|table| {
            in_catalog(command.catalog.as_deref(), &table.catalog)
                && passes(command.db_schema_filter_pattern.as_deref(), &table.schema)
                && passes(command.table_name_filter_pattern.as_deref(), &table.name)
                && of_type(&command.table_types, table.kind)
        })
        .collect();
    if command.include_schema {
        for (table, columns) in described(wanted, options).await {
            let schema = table_schema(&table, &columns, types);
            builder
                .append(&table.catalog, &table.schema, &table.name, table.kind, &schema)
                .map_err(broken)?;
        }
    } else {
        for table in &wanted {
            builder
                .append(&table.catalog, &table.schema, &table.name, table.kind, &Schema::empty())
                .map_err(broken)?;
        }
    }
    builder.build().map_err(broken)
}

/// The tables with their columns, in the same order, less those that could not be described in
/// time: one source that is down must not hide all others.
pub(crate) async fn described(
    tables: Vec<TableEntry>,
    options: &FlightOptions,
) -> Vec<(TableEntry, SchemaRef)> {
    let deadline = Instant::now() + options.metadata_timeout;
    let describe = |table: TableEntry| async move {
        let place = || format!("{}.{}.{}", table.catalog, table.schema, table.name);
        match tokio::time::timeout_at(deadline, table.columns()).await {
            Ok(Ok(columns)) => Some((table, columns)),
            Ok(Err(error)) => {
                tracing::warn!(table = place(), %error, "a table is left out of a listing");
                None
            }
            Err(_) => {
                tracing::warn!(table = place(), "a table is left out of a listing: too slow");
                None
            }
        }
    };
    let described = futures::stream::iter(tables).map(describe).buffered(DESCRIBED_AT_ONCE);
    described.filter_map(std::future::ready).collect().await
}

/// A table's columns as a client will get them, with what JDBC and ADBC show of each.
fn table_schema(table: &TableEntry, columns: &Schema, types: Types) -> Schema {
    let schema = edge::schema(columns, types, None);
    let field = |field: &Arc<Field>| {
        let text =
            matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let mut metadata = field.metadata().clone();
        for (key, value) in [
            ("CATALOG_NAME", table.catalog.as_str()),
            ("DB_SCHEMA_NAME", &table.schema),
            ("TABLE_NAME", &table.name),
            ("IS_AUTO_INCREMENT", "0"),
            ("IS_CASE_SENSITIVE", if text { "1" } else { "0" }),
            ("IS_READ_ONLY", "1"),
            ("IS_SEARCHABLE", "1"),
        ] {
            metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value.to_owned());
        }
        field.as_ref().clone().with_metadata(metadata)
    };
    Schema::new_with_metadata(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
        schema.metadata().clone(),
    )
}

fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch> {
    let mut builder = command.into_builder();
    TABLE_TYPES.into_iter().for_each(|kind| builder.append(kind));
    builder.build().map_err(broken)
}

async fn primary_keys(
    engine: &Arc<Engine>,
    options: &FlightOptions,
    command: &CommandGetPrimaryKeys,
) -> Result<RecordBatch> {
    let deadline = Instant::now() + options.metadata_timeout;
    let mut rows: Vec<(TableEntry, String, i32)> = Vec::new();
    for table in engine.tables().await {
        let wanted = table.name == command.table
            && in_catalog(command.catalog.as_deref(), &table.catalog)
            && command.db_schema.as_deref().is_none_or(|s| s.is_empty() || s == table.schema);
        if !wanted {
            continue;
        }
        let Ok(Ok(key)) = tokio::time::timeout_at(deadline, table.primary_key()).await else {
            tracing::warn!(table = table.name, "a table's primary key cannot be read");
            continue;
        };
        rows.extend(key.into_iter().zip(1..).map(|(column, n)| (table.clone(), column, n)));
    }
    let texts = |of: &dyn Fn(&(TableEntry, String, i32)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    Ok(RecordBatch::try_new(
        Arc::clone(&PRIMARY_KEYS),
        vec![
            texts(&|(table, _, _)| table.catalog.clone()),
            texts(&|(table, _, _)| table.schema.clone()),
            texts(&|(table, _, _)| table.name.clone()),
            texts(&|(_, column, _)| column.clone()),
            Arc::new(StringArray::new_null(rows.len())),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, _, n)| *n))),
        ],
    )?)
}

/// Whether a catalog passes the filter of a command: it is a name, not a pattern. An empty one
/// asks for what has no catalog, and everything here has one.
fn in_catalog(filter: Option<&str>, catalog: &str) -> bool {
    filter.is_none_or(|filter| filter == catalog)
}

/// Whether a kind is among the types asked for. Grafana asks for `BASE TABLE`, some for `table`.
fn of_type(wanted: &[String], kind: &str) -> bool {
    wanted.is_empty()
        || wanted.iter().any(|wanted| {
            wanted.eq_ignore_ascii_case(kind)
                || (wanted.eq_ignore_ascii_case("BASE TABLE") && kind == "TABLE")
        })
}

fn broken(error: FlightError) -> Fault {
    Fault::internal(format!("a listing cannot be made: {error}"))
}

/// As `FlightSql.proto` has it for CommandGetPrimaryKeys.
static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

/// As `FlightSql.proto` has it for exported and imported keys and the cross reference.
static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

#[cfg(test)]
mod tests;
