//! Statements the session carries out itself: options, the current catalog, transactions.

use datafusion::sql::parser::{ResetStatement, Statement as DFStatement};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Set, ShowStatementFilter,
    ShowStatementIn, Statement, UnaryOperator, Use, Value,
};
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

use super::refuse;

/// What a session does itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// `SET name = value`.
    Set { name: String, value: String },
    /// `RESET name`.
    Reset { name: String },
    /// `SHOW …`, which is a query on a system table.
    Show(Shown),
    /// `USE catalog` or `USE catalog.schema`.
    Use(Vec<String>),
    /// `CALL system.cancel('query id')`.
    Cancel { query_id: String },
    /// Accepted for clients that always send it and true without doing anything: every statement
    /// here is read-only and its own transaction.
    Nothing,
}

/// What SHOW shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// All options.
    Options,
    /// One option.
    Option(String),
    /// Tables, of one schema or all.
    Tables { schema: Vec<String>, like: Option<String> },
    /// Columns of a table.
    Columns { table: Vec<String> },
    /// Schemas of the current or the named catalog.
    Schemas { catalog: Option<String> },
    /// Catalogs.
    Catalogs,
}

impl Command {
    /// The command that `statement` is; `None` when it is something to plan.
    pub(super) fn of(statement: &DFStatement) -> Result<Option<Self>> {
        match statement {
            DFStatement::Reset(ResetStatement::Variable(name)) => {
                Ok(Some(Self::Reset { name: dotted(name) }))
            }
            DFStatement::Statement(statement) => Self::of_sql(statement),
            _ => Ok(None),
        }
    }

    fn of_sql(statement: &Statement) -> Result<Option<Self>> {
        let command = match statement {
            Statement::Set(set) => Self::of_set(set)?,
            Statement::ShowVariable { variable } => {
                let words: Vec<_> = variable.iter().map(|i| i.value.as_str()).collect();
                Self::of_show(&words)?
            }
            Statement::ShowTables { show_options, extended, full, external, .. } => {
                if *extended || *full || *external {
                    return Err(refuse::named("SHOW EXTENDED, FULL or EXTERNAL TABLES"));
                }
                let like = match show_options.filter_position.as_ref().map(|f| match f {
                    datafusion::sql::sqlparser::ast::ShowStatementFilterPosition::Infix(f)
                    | datafusion::sql::sqlparser::ast::ShowStatementFilterPosition::Suffix(f) => f,
                }) {
                    None => None,
                    Some(
                        ShowStatementFilter::Like(pattern)
                        | ShowStatementFilter::NoKeyword(pattern),
                    ) => Some(pattern.clone()),
                    Some(_) => return Err(refuse::named("SHOW TABLES with WHERE or ILIKE")),
                };
                let schema = parent(show_options.show_in.as_ref());
                Self::Show(Shown::Tables { schema, like })
            }
            Statement::ShowColumns { show_options, extended, full } => {
                if *extended || *full || show_options.filter_position.is_some() {
                    return Err(refuse::named("SHOW COLUMNS with more than a table"));
                }
                Self::Show(Shown::Columns { table: parent(show_options.show_in.as_ref()) })
            }
            Statement::ShowSchemas { show_options, .. } => {
                let catalog = parent(show_options.show_in.as_ref()).into_iter().next();
                Self::Show(Shown::Schemas { catalog })
            }
            Statement::ShowDatabases { .. } | Statement::ShowCatalogs { .. } => {
                Self::Show(Shown::Catalogs)
            }
            Statement::Use(target) => match target {
                Use::Catalog(name)
                | Use::Schema(name)
                | Use::Database(name)
                | Use::Object(name) => Self::Use(parts(name)),
                _ => return Err(refuse::named("this form of USE")),
            },
            Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { savepoint: None, .. } => Self::Nothing,
            Statement::Call(function) if dotted(&function.name) == "system.cancel" => {
                match single_text(&function.args) {
                    Some(query_id) => Self::Cancel { query_id },
                    None => {
                        return Err(Error::new(
                            ErrorCode::Syntax,
                            "system.cancel takes one text: CALL system.cancel('query id')",
                        ));
                    }
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(command))
    }

    fn of_set(set: &Set) -> Result<Self> {
        match set {
            Set::SingleAssignment { scope, hivevar, variable, values } => {
                if scope.is_some() || *hivevar {
                    return Err(refuse::named("SET LOCAL, SET SESSION or SET GLOBAL"));
                }
                let value = match values.as_slice() {
                    [value] => text_of(value),
                    _ => None,
                };
                let name = dotted(variable);
                match value {
                    Some(value) => Ok(Self::Set { name, value }),
                    None => Err(Error::new(
                        ErrorCode::InvalidOption,
                        format!("SET {name} takes one text, number or word, for example 'value'"),
                    )),
                }
            }
            Set::SetTimeZone { local: false, value } => match text_of(value) {
                Some(value) => Ok(Self::Set { name: "timezone".to_owned(), value }),
                None => Err(Error::new(
                    ErrorCode::InvalidOption,
                    "SET TIME ZONE takes a text, for example 'Europe/London'",
                )),
            },
            Set::SetNames { .. } | Set::SetNamesDefault {} => Ok(Self::Nothing),
            Set::SetTransaction { .. } => Ok(Self::Nothing),
            _ => Err(refuse::named("this form of SET")),
        }
    }

    fn of_show(words: &[&str]) -> Result<Self> {
        let lower: Vec<_> = words.iter().map(|w| w.to_ascii_lowercase()).collect();
        let lower: Vec<_> = lower.iter().map(String::as_str).collect();
        Ok(match lower.as_slice() {
            ["all"] => Self::Show(Shown::Options),
            ["catalogs" | "databases"] => Self::Show(Shown::Catalogs),
            ["schemas"] => Self::Show(Shown::Schemas { catalog: None }),
            ["time", "zone"] => Self::Show(Shown::Option("timezone".to_owned())),
            ["transaction", "isolation", "level"] => {
                Self::Show(Shown::Option("transaction_isolation".to_owned()))
            }
            [] => return Err(Error::new(ErrorCode::Syntax, "SHOW needs a name")),
            name => Self::Show(Shown::Option(name.join("."))),
        })
    }
}

fn parent(show_in: Option<&ShowStatementIn>) -> Vec<String> {
    show_in.and_then(|s| s.parent_name.as_ref()).map(parts).unwrap_or_default()
}

/// The parts of a name, unquoted ones in lower case as everywhere in SQL here.
fn parts(name: &ObjectName) -> Vec<String> {
    let part = |ident: &datafusion::sql::sqlparser::ast::Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    };
    name.0.iter().filter_map(|p| p.as_ident().map(part)).collect()
}

fn dotted(name: &ObjectName) -> String {
    parts(name).join(".")
}

fn single_text(args: &FunctionArguments) -> Option<String> {
    let FunctionArguments::List(list) = args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))] => text_of(value),
        _ => None,
    }
}

fn text_of(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => Some(number.clone()),
            Value::Boolean(on) => Some(on.to_string()),
            Value::Null => Some(String::new()),
            other => other.clone().into_string(),
        },
        Expr::Identifier(word) => Some(word.value.clone()),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => text_of(expr).map(|n| format!("-{n}")),
        _ => None,
    }
}
