//! A whole relation as one SELECT.
//!
//! Every operator becomes a derived table whose columns are named `c0`, `c1`, … (databases flatten
//! it again), so that nothing can mean another column than it does in the tree. What is computed is
//! cast to the type whose values are read back exactly; a column that only passes through keeps the
//! type, the collation and the form it has in its table.
//!
//! A value that cannot be delivered (an infinite date, a numeric NaN) is an error when it is
//! computed with: see [`Dialect::checked`]. Operators that only choose rows choose by it, as a
//! filter on a scan does; the rows they choose are checked when they are read.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::{Expr, Operator as ExprOperator};
use synoptic_source::{Fragment, JoinKind, Operator, Relation, SortKey, TableDef};
use synoptic_types::Reason;

use super::compare::compare;
use super::render::Renderer;
use super::value::{Binding, Class, Collation, Operand};
use super::{ColumnFacts, Columns, Dialect, aggregate};

/// A table's column as a relation selects it.
pub(crate) struct Selected {
    pub sql: String,
    /// As [`Columns::facts`]; `None` also when its values cannot be computed with at the source.
    pub facts: Option<ColumnFacts>,
    /// Whether the column can have values that cannot be delivered.
    pub unchecked: bool,
}

/// What a connector knows of the tables in a relation.
pub(crate) trait Tables {
    /// The table's name in a FROM clause.
    fn from(&self, table: &TableDef) -> Result<String, Reason>;

    /// The facts that a scan's own filters are rendered by.
    fn columns<'a>(&self, table: &'a TableDef) -> Result<&'a dyn Columns, Reason>;

    /// Column `index` of the table.
    fn selected(&self, table: &TableDef, index: usize) -> Result<Selected, Reason>;
}

/// A column of a derived table.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// The table, by its place in [`Rendered::tables`], and the column of it that passes through;
    /// `None` for what was computed, which has the type of the relation's schema.
    pub origin: Option<(usize, usize)>,
    facts: Option<ColumnFacts>,
    /// The column's name, when its values may not be deliverable.
    unchecked: Option<String>,
}

/// A relation as SQL.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub sql: String,
    pub outputs: Vec<Output>,
    /// The tables it reads, with the columns it uses of each.
    pub tables: Vec<(Arc<TableDef>, BTreeSet<usize>)>,
}

/// Renders `relation`.
///
/// # Errors
/// With the reason why it, or a part of it, stays in the engine.
pub(crate) fn render_relation(
    relation: &Relation,
    tables: &dyn Tables,
    dialect: &dyn Dialect,
) -> Result<Rendered, Reason> {
    let mut walk = Walk { tables, dialect, used: Vec::new() };
    let (sql, outputs) = walk.node(relation, 0, true)?;
    Ok(Rendered { sql, outputs, tables: walk.used })
}

/// The columns that an operator's expressions are over.
pub(super) struct Level<'a> {
    schema: Schema,
    outputs: &'a [Output],
    dialect: &'a dyn Dialect,
}

impl Columns for Level<'_> {
    fn facts(&self, column: &str) -> Option<ColumnFacts> {
        self.outputs.get(Relation::index_of(column)?)?.facts.clone()
    }

    fn unchecked(&self, column: &str) -> Option<&str> {
        self.outputs.get(Relation::index_of(column)?)?.unchecked.as_deref()
    }
}

impl<'a> Level<'a> {
    fn new(inputs: &[&Relation], outputs: &'a [Output], dialect: &'a dyn Dialect) -> Self {
        let types = inputs.iter().flat_map(|input| input.schema.fields());
        let fields = types
            .enumerate()
            .map(|(i, field)| Field::new(format!("c{i}"), field.data_type().clone(), true));
        Self { schema: Schema::new(fields.collect::<Vec<_>>()), outputs, dialect }
    }

    /// For what decides on rows.
    pub fn choosing(&self) -> Renderer<'_> {
        Renderer {
            schema: &self.schema,
            columns: self,
            dialect: self.dialect,
            guarded: false,
            fails_on_overflow: false,
            assigning: false,
        }
    }

    /// For values that are delivered or computed with further. Not `guarded`, what cannot be
    /// delivered goes on as it is: the caller knows that it is found at the end.
    pub fn computing(&self, guarded: bool) -> Renderer<'_> {
        Renderer { guarded, fails_on_overflow: true, ..self.choosing() }
    }

    pub fn dialect(&self) -> &'a dyn Dialect {
        self.dialect
    }

    pub fn binary_collation(&self) -> &'static str {
        self.dialect.binary_collation()
    }

    pub fn condition(&self, expr: &Expr) -> Result<String, Reason> {
        Ok(self.choosing().condition(expr, 0)?.at_least(Binding::And))
    }

    /// `operand` as a column of type `to`.
    pub fn output(&self, operand: &Operand, to: &DataType) -> Result<(String, Output), Reason> {
        let refused = || {
            let from = operand.class.noun();
            Reason::DifferentMeaning(format!("{from} at the source is {to} here"))
        };
        let fits = match (operand.class, Class::of(to).ok_or_else(refused)?) {
            (Class::Null, _) | (Class::Int { .. }, Class::Int { .. }) => true,
            (Class::Decimal { scale: s, .. }, Class::Decimal { scale: t, .. }) => s == t,
            (Class::Uuid, _) => false,
            (from, to) => from == to,
        };
        let native = self.dialect.native_type(to).filter(|_| fits).ok_or_else(refused)?;
        let is_text = Class::of(to) == Some(Class::Text);
        let collate = if is_text { self.dialect.binary_collation() } else { "" };
        let facts = ColumnFacts {
            native_type: native.clone(),
            collation_is_binary: true,
            padded_char: false,
        };
        let sql = format!("CAST({} AS {native}){collate}", operand.sql);
        Ok((sql, Output { origin: None, facts: Some(facts), unchecked: None }))
    }
}

/// A walk down a relation. `first` is the number of a node's first column in what is around it.
struct Walk<'a> {
    tables: &'a dyn Tables,
    dialect: &'a dyn Dialect,
    used: Vec<(Arc<TableDef>, BTreeSet<usize>)>,
}

impl Walk<'_> {
    /// A node as SELECT. `root`: everything it yields is read.
    fn node(
        &mut self,
        relation: &Relation,
        first: usize,
        root: bool,
    ) -> Result<(String, Vec<Output>), Reason> {
        match &relation.operator {
            Operator::Scan(fragment) => self.scan(fragment, first),
            Operator::Filter { input, predicate } => {
                let (from, outputs) = self.node(input, 0, false)?;
                let condition =
                    Level::new(&[input], &outputs, self.dialect).condition(predicate)?;
                let list = self.renamed(outputs.len(), first);
                Ok((format!("SELECT {list} FROM ({from}) AS t WHERE {condition}"), outputs))
            }
            Operator::Project { input, exprs } => {
                let (from, outputs) = self.node(input, 0, false)?;
                let level = Level::new(&[input], &outputs, self.dialect);
                let mut list = Vec::with_capacity(exprs.len());
                let mut columns = Vec::with_capacity(exprs.len());
                for (i, expr) in exprs.iter().enumerate() {
                    let (sql, output) = match passing(expr, &outputs) {
                        Some(passing) => passing,
                        None => {
                            let operand = level.computing(true).operand(expr, 0)?;
                            level.output(&operand, data_type(relation, i)?)?
                        }
                    };
                    list.push(format!("{sql} AS c{}", first + i));
                    columns.push(output);
                }
                Ok((format!("SELECT {} FROM ({from}) AS t", self.listed(&list)), columns))
            }
            Operator::Aggregate { .. } => self.aggregate(relation, first, root),
            Operator::Join { left, right, kind, on, filter } => {
                self.join((left, right), *kind, on, filter.as_ref(), first)
            }
            Operator::Union { inputs } => self.union(relation, inputs, first, root),
            Operator::TopN { input, keys, fetch } => {
                let (from, outputs) = self.node(input, 0, false)?;
                let level = Level::new(&[input], &outputs, self.dialect);
                let keys = keys.iter().map(|key| sort_key(&level, key));
                let keys = keys.collect::<Result<Vec<_>, _>>()?.join(", ");
                // A name in ORDER BY is one of the select list, if it is there: only without new
                // names is that the input's column.
                let (list, most) = (self.renamed(outputs.len(), 0), limit(*fetch));
                let sql = format!("SELECT {list} FROM ({from}) AS t ORDER BY {keys} LIMIT {most}");
                if first == 0 {
                    return Ok((sql, outputs));
                }
                let list = self.renamed(outputs.len(), first);
                Ok((format!("SELECT {list} FROM ({sql}) AS t"), outputs))
            }
            Operator::Limit { input, fetch } => {
                let (from, outputs) = self.node(input, 0, false)?;
                let list = self.renamed(outputs.len(), first);
                let most = limit(*fetch);
                Ok((format!("SELECT {list} FROM ({from}) AS t LIMIT {most}"), outputs))
            }
        }
    }

    fn scan(&mut self, fragment: &Fragment, first: usize) -> Result<(String, Vec<Output>), Reason> {
        let table = &fragment.table;
        let facts = self.tables.columns(table)?;
        let place = self.used.len();
        let mut used: BTreeSet<usize> = fragment.projection.iter().copied().collect();
        let mut conditions = Vec::with_capacity(fragment.filters.len());
        for filter in &fragment.filters {
            for reference in filter.column_refs() {
                used.extend(table.schema.index_of(&reference.name));
            }
            conditions.push(super::render_filter(filter, &table.schema, facts, self.dialect)?);
        }
        let mut list = Vec::with_capacity(fragment.projection.len());
        let mut outputs = Vec::with_capacity(fragment.projection.len());
        for (n, &i) in fragment.projection.iter().enumerate() {
            let selected = self.tables.selected(table, i)?;
            list.push(format!("{} AS c{}", selected.sql, first + n));
            let name = table.schema.fields().get(i).map(|field| field.name().clone());
            outputs.push(Output {
                origin: Some((place, i)),
                facts: selected.facts,
                unchecked: name.filter(|_| selected.unchecked),
            });
        }
        self.used.push((Arc::clone(table), used));
        let from = self.tables.from(table)?;
        let mut sql = format!("SELECT {} FROM {from}", self.listed(&list));
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        if let Some(most) = fragment.limit {
            sql.push_str(&format!(" LIMIT {}", limit(most)));
        }
        Ok((sql, outputs))
    }

    fn aggregate(
        &mut self,
        relation: &Relation,
        first: usize,
        root: bool,
    ) -> Result<(String, Vec<Output>), Reason> {
        let Operator::Aggregate { input, groups, aggregates } = &relation.operator else {
            return Err(Reason::NotCapable("this operator".to_owned()));
        };
        if groups.is_empty() && aggregates.is_empty() {
            return Err(Reason::NotCapable("a group of nothing".to_owned()));
        }
        let (from, outputs) = self.node(input, 0, false)?;
        let level = Level::new(&[input], &outputs, self.dialect);
        let mut list = Vec::with_capacity(groups.len() + aggregates.len());
        let mut columns = Vec::with_capacity(groups.len() + aggregates.len());
        for (i, group) in groups.iter().enumerate() {
            // At the root every group is read, and what cannot be delivered is found then.
            let operand = level.computing(!root).operand(group, 0)?;
            key(&operand)?;
            let passing =
                passing(group, &outputs).filter(|(_, output)| root || output.unchecked.is_none());
            let (sql, output) = match passing {
                Some(passing) => passing,
                None => {
                    let operand = level.computing(true).operand(group, 0)?;
                    level.output(&operand, data_type(relation, i)?)?
                }
            };
            list.push(format!("{sql} AS c{}", first + i));
            columns.push(output);
        }
        for (i, call) in aggregates.iter().enumerate() {
            let i = groups.len() + i;
            let operand = aggregate::render(&level, call, data_type(relation, i)?, root)?;
            let (sql, output) = level.output(&operand, data_type(relation, i)?)?;
            list.push(format!("{sql} AS c{}", first + i));
            columns.push(output);
        }
        let mut sql = format!("SELECT {} FROM ({from}) AS t", list.join(", "));
        if !groups.is_empty() {
            // By place: whatever a group's expression looks like, it cannot be taken for another.
            let places: Vec<String> = (1..=groups.len()).map(|place| place.to_string()).collect();
            sql.push_str(&format!(" GROUP BY {}", places.join(", ")));
        }
        Ok((sql, columns))
    }

    fn join(
        &mut self,
        (left, right): (&Relation, &Relation),
        kind: JoinKind,
        on: &[(Expr, Expr)],
        filter: Option<&Expr>,
        first: usize,
    ) -> Result<(String, Vec<Output>), Reason> {
        if on.is_empty() {
            return Err(Reason::NotOnAllowList("a join without an equality".to_owned()));
        }
        let (left_sql, left_outputs) = self.node(left, 0, false)?;
        let (right_sql, right_outputs) = self.node(right, left_outputs.len(), false)?;
        let kept = left_outputs.len();
        let outputs: Vec<Output> = left_outputs.into_iter().chain(right_outputs).collect();
        let level = Level::new(&[left, right], &outputs, self.dialect);
        let mut conditions = Vec::with_capacity(on.len() + 1);
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for (one, other) in on {
            let one = level.choosing().operand(one, 0)?;
            let other = level.choosing().operand(other, 0)?;
            key(&one)?;
            key(&other)?;
            self.dialect.joins_by(&one)?;
            self.dialect.joins_by(&other)?;
            keys.push(one.sql.clone());
            others.push(other.sql.clone());
            let equal = compare(one, ExprOperator::Eq, other, self.dialect)?;
            conditions.push(equal.at_least(Binding::And));
        }
        if let Some(filter) = filter {
            conditions.push(level.condition(filter)?);
        }
        let on_many = keys.len() > 1;
        let on = conditions.join(" AND ");
        let both = |word: &str, list: String| {
            format!("SELECT {list} FROM ({left_sql}) AS l {word} JOIN ({right_sql}) AS r ON {on}")
        };
        let by_list = self.dialect.partners_by_list();
        if by_list && filter.is_some() && matches!(kind, JoinKind::Semi | JoinKind::Anti) {
            let what = "a condition on partners beyond equal keys";
            return Err(Reason::NotOnAllowList(what.to_owned()));
        }
        let partner = |exists: bool, list: String| {
            let condition = if by_list {
                let (mut keys, others) = (keys.join(", "), others.join(", "));
                if on_many {
                    keys = format!("({keys})");
                }
                // Unknown, where a key is NULL, is no partner.
                let test = if exists { "" } else { " IS NOT TRUE" };
                format!("({keys} IN (SELECT {others} FROM ({right_sql}) AS r)){test}")
            } else {
                let not = if exists { "" } else { "NOT " };
                format!("{not}EXISTS (SELECT FROM ({right_sql}) AS r WHERE {on})")
            };
            format!("SELECT {list} FROM ({left_sql}) AS l WHERE {condition}")
        };
        let sql = match kind {
            JoinKind::Inner => both("INNER", self.renamed(outputs.len(), first)),
            JoinKind::Left => both("LEFT", self.renamed(outputs.len(), first)),
            JoinKind::Semi => partner(true, self.renamed(kept, first)),
            JoinKind::Anti => partner(false, self.renamed(kept, first)),
        };
        let mut outputs = outputs;
        if matches!(kind, JoinKind::Semi | JoinKind::Anti) {
            outputs.truncate(kept);
        }
        Ok((sql, outputs))
    }

    /// Each input's columns become the relation's types first: what a database makes of columns
    /// that differ, in type, collation or length, is not what the engine makes of them.
    fn union(
        &mut self,
        relation: &Relation,
        inputs: &[Arc<Relation>],
        first: usize,
        root: bool,
    ) -> Result<(String, Vec<Output>), Reason> {
        let width = relation.schema.fields().len();
        if width == 0 && root {
            return Err(Reason::NotOnAllowList("UNION ALL without columns".to_owned()));
        }
        let mut selects = Vec::with_capacity(inputs.len());
        let mut columns = Vec::new();
        for input in inputs {
            let (from, outputs) = self.node(input, 0, false)?;
            let level = Level::new(&[input], &outputs, self.dialect);
            let mut list = Vec::with_capacity(width);
            columns = Vec::with_capacity(width);
            for i in 0..width {
                let operand = level.computing(true).operand(&Relation::column(i), 0)?;
                let (sql, output) = level.output(&operand, data_type(relation, i)?)?;
                list.push(format!("{sql} AS c{}", first + i));
                columns.push(output);
            }
            // Databases do not agree on what UNION ALL of no columns is.
            let list = if list.is_empty() { "1".to_owned() } else { list.join(", ") };
            selects.push(format!("SELECT {list} FROM ({from}) AS t"));
        }
        Ok((selects.join(" UNION ALL "), columns))
    }

    /// `c0 AS c5, c1 AS c6, …`.
    fn renamed(&self, columns: usize, first: usize) -> String {
        let column = |i: usize| match first {
            0 => format!("c{i}"),
            _ => format!("c{i} AS c{}", first + i),
        };
        self.listed(&(0..columns).map(column).collect::<Vec<_>>())
    }

    /// A select list; an empty one when only the number of rows matters.
    fn listed(&self, columns: &[String]) -> String {
        if columns.is_empty() { self.dialect.no_columns().to_owned() } else { columns.join(", ") }
    }
}

/// More than the source can count is all.
fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// An input's column that passes through.
fn passing(expr: &Expr, outputs: &[Output]) -> Option<(String, Output)> {
    let Expr::Column(column) = expr else { return None };
    let output = outputs.get(Relation::index_of(&column.name)?)?;
    Some((column.name.clone(), output.clone()))
}

fn data_type(relation: &Relation, index: usize) -> Result<&DataType, Reason> {
    let unknown = || Reason::NotOnAllowList("a column without a type".to_owned());
    relation.data_type(index).ok_or_else(unknown)
}

/// Whether equal values of the operand are one value on both sides.
pub(super) fn key(operand: &Operand) -> Result<(), Reason> {
    if operand.literal.is_some() {
        return Err(Reason::NotOnAllowList("a literal as a key".to_owned()));
    }
    match operand.class {
        Class::Float32 | Class::Float64 => Err(Reason::DifferentMeaning(
            "the source takes other floating-point numbers for equal".to_owned(),
        )),
        Class::Null => Err(Reason::NotOnAllowList("NULL as a key".to_owned())),
        _ => Ok(()),
    }
}

fn sort_key(level: &Level<'_>, sort: &SortKey) -> Result<String, Reason> {
    let operand = level.choosing().operand(&sort.expr, 0)?;
    key(&operand)?;
    let collate = match (operand.class, operand.collation) {
        (Class::Text, Collation::Binary) => "",
        (Class::Text, _) => level.dialect.binary_collation(),
        _ => "",
    };
    let direction = if sort.ascending { "ASC" } else { "DESC" };
    let nulls = if sort.nulls_first { "FIRST" } else { "LAST" };
    Ok(format!("{}{collate} {direction} NULLS {nulls}", operand.sql))
}
