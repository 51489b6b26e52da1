//! Queries: their parts, their text, and what is left when a part is dropped.

use super::expr::Expr;

/// `SELECT`, or several under `UNION ALL`.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub sources: Vec<From>,
    pub distinct: bool,
    /// What is selected; the columns are named `o0`, `o1`, …
    pub items: Vec<Expr>,
    pub filters: Vec<Expr>,
    /// The first so many items are the groups; without aggregation `None`.
    pub groups: Option<usize>,
    pub having: Vec<Expr>,
    /// Items and their directions. All of them when there are any, so that the order is total.
    pub order: Vec<(usize, &'static str)>,
    pub limit: Option<usize>,
    pub offset: Option<usize>,
    pub union: Option<Box<Query>>,
}

/// One entry of FROM.
#[derive(Debug, Clone)]
pub struct From {
    /// The word before it; empty for the first.
    pub join: &'static str,
    pub what: Relation,
    pub alias: String,
    pub on: Vec<Expr>,
}

/// What rows come from.
#[derive(Debug, Clone)]
pub enum Relation {
    /// `{t0}` and so on: the place is put in later.
    Table(usize),
    Derived(Box<Query>),
    Common(Box<Query>),
}

impl Query {
    /// As SQL, with `{t0}` for tables.
    pub fn sql(&self) -> String {
        let mut sql = String::new();
        let common = self.sources.iter().filter_map(|source| match &source.what {
            Relation::Common(query) => Some(format!("c_{} AS ({})", source.alias, query.sql())),
            _ => None,
        });
        let common: Vec<_> = common.collect();
        if !common.is_empty() {
            sql += &format!("WITH {} ", common.join(", "));
        }
        sql += &self.arm();
        if let Some(other) = &self.union {
            sql += " UNION ALL ";
            sql += &other.arm();
        }
        if !self.order.is_empty() {
            let keys = self.order.iter().map(|(at, way)| format!("{}{way}", at + 1));
            sql += &format!(" ORDER BY {}", keys.collect::<Vec<_>>().join(", "));
        }
        if let Some(limit) = self.limit {
            sql += &format!(" LIMIT {limit}");
        }
        if let Some(offset) = self.offset {
            sql += &format!(" OFFSET {offset}");
        }
        sql
    }

    fn arm(&self) -> String {
        let items = self.items.iter().enumerate().map(|(at, e)| format!("{} AS o{at}", e.sql()));
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{}", items.collect::<Vec<_>>().join(", "));
        for source in &self.sources {
            let what = match &source.what {
                Relation::Table(at) => format!("{{t{at}}}"),
                Relation::Derived(query) => format!("({})", query.sql()),
                Relation::Common(_) => format!("c_{}", source.alias),
            };
            let join = if source.join.is_empty() { "FROM" } else { source.join };
            sql += &format!(" {join} {what} AS {}", source.alias);
            if !source.join.is_empty() {
                sql += &format!(" ON {}", all(&source.on));
            }
        }
        if !self.filters.is_empty() {
            sql += &format!(" WHERE {}", all(&self.filters));
        }
        if let Some(groups @ 1..) = self.groups {
            let groups: Vec<_> = (1..=groups).map(|at| at.to_string()).collect();
            sql += &format!(" GROUP BY {}", groups.join(", "));
        }
        if !self.having.is_empty() {
            sql += &format!(" HAVING {}", all(&self.having));
        }
        sql
    }

    /// Whether the order of the rows is part of the answer.
    pub fn is_ordered(&self) -> bool {
        !self.order.is_empty()
    }

    /// Every query with a part less, the largest parts first. Some are not valid.
    pub fn smaller(&self) -> Vec<Query> {
        let mut found = Vec::new();
        let mut with = |change: &dyn Fn(&mut Query)| {
            let mut copy = self.clone();
            change(&mut copy);
            found.push(copy);
        };
        if self.union.is_some() {
            with(&|q| q.union = None);
        }
        for at in (0..self.sources.len()).rev().filter(|_| self.sources.len() > 1) {
            with(&|q| {
                q.sources.remove(at);
                q.sources[0].join = "";
            });
        }
        for at in 0..self.filters.len() {
            with(&|q| drop(q.filters.remove(at)));
        }
        for at in 0..self.having.len() {
            with(&|q| drop(q.having.remove(at)));
        }
        for at in (0..self.items.len()).rev().filter(|_| self.items.len() > 1) {
            with(&|q| q.drop_item(at));
        }
        if self.distinct {
            with(&|q| q.distinct = false);
        }
        if self.offset.is_some() {
            with(&|q| q.offset = None);
        }
        if self.limit.is_some() {
            with(&|q| (q.limit, q.offset) = (None, None));
        } else if !self.order.is_empty() {
            with(&|q| q.order.clear());
        }
        for at in 0..self.order.len() {
            if !self.order[at].1.is_empty() {
                with(&|q| q.order[at].1 = "");
            }
        }
        for (at, source) in self.sources.iter().enumerate() {
            for on in 0..source.on.len() {
                with(&|q| drop(q.sources[at].on.remove(on)));
                for smaller in source.on[on].smaller() {
                    with(&|q| q.sources[at].on[on] = smaller.clone());
                }
            }
            if let Relation::Derived(query) | Relation::Common(query) = &source.what {
                for smaller in query.smaller() {
                    with(&|q| q.sources[at].what = Relation::Derived(Box::new(smaller.clone())));
                }
            }
        }
        if let Some(other) = &self.union {
            for smaller in other.smaller().into_iter().filter(|o| o.items.len() == self.items.len())
            {
                with(&|q| q.union = Some(Box::new(smaller.clone())));
            }
        }
        for at in 0..self.items.len() {
            for smaller in self.items[at].smaller() {
                with(&|q| q.items[at] = smaller.clone());
            }
        }
        for at in 0..self.filters.len() {
            for smaller in self.filters[at].smaller() {
                with(&|q| q.filters[at] = smaller.clone());
            }
        }
        for at in 0..self.having.len() {
            for smaller in self.having[at].smaller() {
                with(&|q| q.having[at] = smaller.clone());
            }
        }
        found
    }

    fn drop_item(&mut self, at: usize) {
        self.items.remove(at);
        self.order.retain(|(key, _)| *key != at);
        for (key, _) in &mut self.order {
            *key -= usize::from(*key > at);
        }
        if let Some(groups) = &mut self.groups {
            *groups -= usize::from(at < *groups);
        }
        if let Some(other) = &mut self.union {
            other.drop_item(at);
        }
    }
}

fn all(conditions: &[Expr]) -> String {
    if conditions.is_empty() {
        return "true".to_owned();
    }
    conditions.iter().map(|c| format!("({})", c.sql())).collect::<Vec<_>>().join(" AND ")
}
