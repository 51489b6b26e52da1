//! SHOW as the query it is, and the settings as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};
use crate::query::Work;
use crate::sql::Shown;

use super::{Session, settings};

impl Session {
    /// A SHOW as the query it is.
    pub(super) fn show_sql(&self, shown: &Shown) -> Result<String> {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let catalog = self.catalog();
        Ok(match shown {
            Shown::Catalogs => {
                let values: Vec<_> =
                    self.engine().catalogs().iter().map(|c| format!("({})", quote(c))).collect();
                format!("SELECT * FROM (VALUES {}) AS t (catalog_name)", values.join(", "))
            }
            Shown::Schemas { catalog: asked } => format!(
                "SELECT schema_name FROM information_schema.schemata WHERE catalog_name = {} \
                 ORDER BY 1",
                quote(asked.as_ref().unwrap_or(&catalog))
            ),
            Shown::Tables { schema, like } => {
                let mut conditions = match schema.as_slice() {
                    [] => vec![],
                    [one] => {
                        vec![format!("(table_schema = {0} OR table_catalog = {0})", quote(one))]
                    }
                    [catalog, schema] => vec![
                        format!("table_catalog = {}", quote(catalog)),
                        format!("table_schema = {}", quote(schema)),
                    ],
                    _ => {
                        return Err(Error::new(ErrorCode::Syntax, "SHOW TABLES IN catalog.schema"));
                    }
                };
                conditions.extend(like.iter().map(|l| format!("table_name LIKE {}", quote(l))));
                let filter = match conditions.is_empty() {
                    true => String::new(),
                    false => format!("WHERE {} ", conditions.join(" AND ")),
                };
                format!("SELECT * FROM information_schema.tables {filter}ORDER BY 1, 2, 3")
            }
            Shown::Columns { table } => {
                let name: Vec<_> =
                    table.iter().map(|p| format!("\"{}\"", p.replace('"', "\"\""))).collect();
                format!("DESCRIBE {}", name.join("."))
            }
            Shown::Options | Shown::Option(_) => {
                return Err(Error::new(ErrorCode::Internal, "options are shown without a query"));
            }
        })
    }
}

pub(super) fn settings_schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![field("name"), field("value"), field("description")]))
}

pub(super) fn settings_rows(settings: Vec<settings::Setting>) -> Result<(SchemaRef, Work)> {
    let column = |of: fn(&settings::Setting) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(settings.iter().map(of)))
    };
    let columns = vec![column(|s| &s.name), column(|s| &s.value), column(|s| s.description)];
    let batch = RecordBatch::try_new(settings_schema(), columns)
        .map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?;
    Ok((settings_schema(), Work::Rows(vec![batch])))
}
