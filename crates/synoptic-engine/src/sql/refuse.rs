//! What parses and is not honoured, refused by name.
//!
//! Every struct is taken apart without `..`, so that a field a new parser version adds does not
//! compile until somebody has decided about it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, GroupByWithModifier,
    JoinOperator, LimitClause, Query, Select, SelectFlavor, SetExpr, Statement, TableFactor, Visit,
    Visitor,
};
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

/// An error for a feature that is not supported.
pub(super) fn named(what: &str) -> Error {
    Error::new(ErrorCode::Unsupported, format!("{what} is not supported"))
}

/// An error for a whole statement that is not a query.
pub(super) fn statement(statement: &Statement) -> Error {
    let text = statement.to_string();
    let words = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ").to_uppercase();
    let verb = words.split_whitespace().next().unwrap_or_default().to_owned();
    let what = if matches!(verb.as_str(), "CREATE" | "DROP" | "ALTER") { words } else { verb };
    Error::new(
        ErrorCode::Unsupported,
        format!(
            "{what} is not supported; SELECT, INSERT, UPDATE, DELETE, EXPLAIN, SHOW and SET are"
        ),
    )
}

/// Refuses to EXPLAIN what could not be run.
pub(super) fn not_a_query(inner: &Statement) -> Result<()> {
    if matches!(inner, Statement::Query(_)) { Ok(()) } else { Err(statement(inner)) }
}

/// Refuses the first thing in the tree that would otherwise be ignored.
pub(super) fn unhonoured(statement: &Statement) -> Result<()> {
    match statement.visit(&mut Refuse) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(what),
    }
}

struct Refuse;

type Flow = ControlFlow<Error>;

/// Refuses `what` when it is present.
fn when(present: bool, what: &str) -> Flow {
    if present { ControlFlow::Break(named(what)) } else { ControlFlow::Continue(()) }
}

impl Visitor for Refuse {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        for cte in with.iter().flat_map(|with| &with.cte_tables) {
            when(cte.from.is_some(), "FROM in a WITH clause")?;
            when(cte.materialized.is_some(), "MATERIALIZED in a WITH clause")?;
        }
        let by = matches!(limit_clause, Some(LimitClause::LimitOffset { limit_by, .. })
            if !limit_by.is_empty());
        when(by, "LIMIT … BY")?;
        when(fetch.is_some(), "FETCH")?;
        when(!locks.is_empty(), "a locking clause (FOR UPDATE, FOR SHARE)")?;
        when(for_clause.is_some(), "FOR XML, FOR JSON or FOR BROWSE")?;
        when(settings.is_some(), "SETTINGS (use SET synoptic.NAME = 'value')")?;
        when(format_clause.is_some(), "FORMAT")?;
        when(!pipe_operators.is_empty(), "the pipe operator |>")?;
        if let Some(order_by) = order_by {
            when(order_by.interpolate.is_some(), "ORDER BY … INTERPOLATE")?;
        }
        writes(body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct: _,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection: _,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection: _,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having: _,
            named_window: _,
            qualify: _,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        when(!optimizer_hints.is_empty(), "an optimizer hint /*+ … */")?;
        when(select_modifiers.is_some(), "a MySQL SELECT modifier")?;
        when(top.is_some(), "TOP")?;
        when(exclude.is_some(), "EXCLUDE after the select list (write * EXCLUDE (…))")?;
        when(into.is_some(), "SELECT INTO")?;
        when(!lateral_views.is_empty(), "LATERAL VIEW")?;
        when(prewhere.is_some(), "PREWHERE")?;
        when(!connect_by.is_empty(), "CONNECT BY")?;
        when(!cluster_by.is_empty(), "CLUSTER BY")?;
        when(!distribute_by.is_empty(), "DISTRIBUTE BY")?;
        when(!sort_by.is_empty(), "SORT BY")?;
        when(value_table_mode.is_some(), "SELECT AS STRUCT or AS VALUE")?;
        when(*flavor == SelectFlavor::FromFirstNoSelect, "FROM without SELECT")?;
        let modifiers = match group_by {
            GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
        };
        when(modifiers.contains(&GroupByWithModifier::Totals), "GROUP BY … WITH TOTALS")?;
        for join in from.iter().flat_map(|table| &table.joins) {
            when(join.global, "GLOBAL JOIN")?;
            when(
                matches!(join.join_operator, JoinOperator::AsOf { .. }),
                "ASOF JOIN (use a window or a correlated maximum for now)",
            )?;
            when(matches!(join.join_operator, JoinOperator::StraightJoin(_)), "STRAIGHT_JOIN")?;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        match factor {
            TableFactor::Table {
                name: _,
                alias: _,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let settings = args.as_ref().is_some_and(|args| args.settings.is_some());
                when(settings, "SETTINGS of a table function")?;
                // They were taken out of the tables of a query before.
                when(!with_hints.is_empty(), "a table hint WITH (…) here")?;
                when(
                    version.is_some(),
                    "a version of a table that is not spelled FOR SYSTEM_TIME AS OF or FOR VERSION AS OF",
                )?;
                when(*with_ordinality, "WITH ORDINALITY")?;
                when(!partitions.is_empty(), "PARTITION (…) of a table")?;
                when(json_path.is_some(), "a JSON path after a table")?;
                when(sample.is_some(), "TABLESAMPLE")?;
                when(!index_hints.is_empty(), "an index hint")
            }
            TableFactor::Derived { lateral: _, subquery: _, alias: _, sample } => {
                when(sample.is_some(), "TABLESAMPLE")
            }
            TableFactor::UNNEST {
                alias: _,
                array_exprs: _,
                with_offset,
                with_offset_alias: _,
                with_ordinality,
            } => {
                when(*with_offset, "UNNEST … WITH OFFSET")?;
                when(*with_ordinality, "WITH ORDINALITY")
            }
            TableFactor::Function { lateral: _, name: _, args: _, with_ordinality, alias: _ } => {
                when(*with_ordinality, "WITH ORDINALITY")
            }
            TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            TableFactor::TableFunction { .. } => when(true, "TABLE(…)"),
            TableFactor::JsonTable { .. } => when(true, "JSON_TABLE"),
            TableFactor::OpenJsonTable { .. } => when(true, "OPENJSON"),
            TableFactor::Pivot { .. } => when(true, "PIVOT"),
            TableFactor::Unpivot { .. } => when(true, "UNPIVOT"),
            TableFactor::MatchRecognize { .. } => when(true, "MATCH_RECOGNIZE"),
            TableFactor::XmlTable { .. } => when(true, "XMLTABLE"),
            TableFactor::SemanticView { .. } => when(true, "SEMANTIC_VIEW"),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        match expr {
            Expr::Function(function) => function_call(function),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn function_call(function: &Function) -> Flow {
    let Function {
        name: _,
        uses_odbc_syntax: _,
        parameters,
        args,
        filter: _,
        null_treatment: _,
        over: _,
        within_group: _,
    } = function;
    when(!matches!(parameters, FunctionArguments::None), "a function with two argument lists")?;
    let FunctionArguments::List(list) = args else {
        return ControlFlow::Continue(());
    };
    for clause in &list.clauses {
        match clause {
            FunctionArgumentClause::IgnoreOrRespectNulls(_)
            | FunctionArgumentClause::OrderBy(_) => {}
            other => when(true, &format!("{other} inside a function call"))?,
        }
    }
    ControlFlow::Continue(())
}

/// Statements that write can hide in the body of a query.
fn writes(body: &SetExpr) -> Flow {
    match body {
        SetExpr::Insert(inner)
        | SetExpr::Update(inner)
        | SetExpr::Delete(inner)
        | SetExpr::Merge(inner) => ControlFlow::Break(statement(inner)),
        SetExpr::SetOperation { left, right, .. } => {
            writes(left)?;
            writes(right)
        }
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => {
            ControlFlow::Continue(())
        }
    }
}
