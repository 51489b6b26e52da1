use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetSqlInfo, CommandGetXdbcTypeInfo, CommandStatementQuery,
};

use super::*;

fn columns(command: Command) -> Vec<(String, DataType, bool)> {
    let schema = schema_of(&command).expect("a schema").expect("a metadata command");
    let column = |f: &Arc<Field>| (f.name().clone(), f.data_type().clone(), f.is_nullable());
    schema.fields().iter().map(column).collect()
}

fn text(name: &str, nullable: bool) -> (String, DataType, bool) {
    (name.to_owned(), DataType::Utf8, nullable)
}

#[test]
fn schemas_are_those_of_the_specification() {
    assert_eq!(
        columns(Command::CommandGetCatalogs(CommandGetCatalogs {})),
        [text("catalog_name", false)]
    );
    assert_eq!(
        columns(Command::CommandGetDbSchemas(CommandGetDbSchemas::default())),
        [text("catalog_name", true), text("db_schema_name", false)]
    );
    let tables = |include_schema| {
        let command = CommandGetTables { include_schema, ..CommandGetTables::default() };
        columns(Command::CommandGetTables(command))
    };
    let four = [
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("table_type", false),
    ];
    assert_eq!(tables(false), four);
    assert_eq!(tables(true)[..4], four);
    assert_eq!(tables(true)[4], ("table_schema".to_owned(), DataType::Binary, false));
    assert_eq!(
        columns(Command::CommandGetTableTypes(CommandGetTableTypes {})),
        [text("table_type", false)]
    );
    let keys = columns(Command::CommandGetPrimaryKeys(CommandGetPrimaryKeys::default()));
    assert_eq!(keys.len(), 6);
    assert_eq!(keys[5], ("key_sequence".to_owned(), DataType::Int32, false));
    for command in [
        Command::CommandGetExportedKeys(CommandGetExportedKeys::default()),
        Command::CommandGetImportedKeys(CommandGetImportedKeys::default()),
        Command::CommandGetCrossReference(CommandGetCrossReference::default()),
    ] {
        let keys = columns(command);
        assert_eq!(keys.len(), 13);
        assert_eq!(keys[12], ("delete_rule".to_owned(), DataType::UInt8, false));
    }
    assert_eq!(columns(Command::CommandGetSqlInfo(CommandGetSqlInfo::default())).len(), 2);
    assert_eq!(
        columns(Command::CommandGetXdbcTypeInfo(CommandGetXdbcTypeInfo::default())).len(),
        19
    );
    let query = Command::CommandStatementQuery(CommandStatementQuery::default());
    assert!(schema_of(&query).expect("no error").is_none());
}

#[test]
fn a_base_table_is_a_table_in_any_case() {
    let wanted = |types: &[&str]| types.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    for types in [&[][..], &["TABLE"], &["table"], &["BASE TABLE"], &["VIEW", "base table"]] {
        assert!(of_type(&wanted(types), "TABLE"), "{types:?}");
    }
    assert!(of_type(&wanted(&["view"]), "VIEW"));
    assert!(!of_type(&wanted(&["BASE TABLE"]), "VIEW"));
    assert!(!of_type(&wanted(&["TABLE"]), "SYSTEM TABLE"));
}

#[test]
fn a_catalog_is_a_name_and_everything_has_one() {
    assert!(in_catalog(None, "bank") && in_catalog(Some("bank"), "bank"));
    assert!(!in_catalog(Some("b%"), "bank") && !in_catalog(Some(""), "bank"));
}

#[test]
fn table_types_are_sorted() {
    let batch = table_types(CommandGetTableTypes {}).expect("types");
    let column = batch.column(0).as_any().downcast_ref::<StringArray>().expect("texts");
    assert_eq!(column.iter().flatten().collect::<Vec<_>>(), TABLE_TYPES);
}
