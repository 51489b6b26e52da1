//! Random queries over the tables of a world.

use super::expr::Expr;
use super::query::{From, Query, Relation};
use super::rng::Rng;
use super::world::{Kind, World, kind_of, literal};

/// Writes queries; the aliases it hands out are unique.
pub struct Generator<'a> {
    rng: &'a mut Rng,
    world: &'a World,
    aliases: usize,
}

/// The columns an expression may use.
#[derive(Clone, Default)]
struct Scope {
    columns: Vec<Expr>,
    /// Together unique per row; empty when nothing is.
    ids: Vec<String>,
}

impl Scope {
    fn of(&self, kind: Kind) -> Vec<&Expr> {
        self.columns.iter().filter(|c| c.kind == kind).collect()
    }
}

const COMPARISONS: [&str; 8] = [
    "$ = $",
    "$ = $",
    "$ <> $",
    "$ < $",
    "$ <= $",
    "$ > $",
    "$ IS DISTINCT FROM $",
    "$ IS NOT DISTINCT FROM $",
];
const WAYS: [&str; 6] =
    ["", " DESC", " NULLS FIRST", " DESC NULLS LAST", " NULLS LAST", " DESC NULLS FIRST"];
const PATTERNS: [&str; 11] =
    ["'a%'", "'%b'", "'_'", "'%a%'", "'a\\%%'", "''", "'%'", "'a_b'", "'%\\\\'", "'A%'", "'__%'"];

impl<'a> Generator<'a> {
    pub fn new(rng: &'a mut Rng, world: &'a World) -> Self {
        Self { rng, world, aliases: 0 }
    }

    /// A query that nests at most `depth` others.
    pub fn query(&mut self, depth: usize) -> Query {
        let mut query = self.select(depth, None);
        if self.rng.chance(12) {
            let kinds: Vec<_> = query.items.iter().map(|item| item.kind).collect();
            query.union = Some(Box::new(self.select(0, Some(&kinds))));
        }
        if self.rng.chance(45) {
            let mut order: Vec<_> = (0..query.items.len()).collect();
            for at in (1..order.len()).rev() {
                order.swap(at, self.rng.below(at + 1));
            }
            query.order = order.into_iter().map(|at| (at, *self.rng.pick(&WAYS))).collect();
            if self.rng.chance(60) {
                query.limit = Some(self.rng.below(9));
                query.offset = self.rng.chance(30).then(|| self.rng.below(4));
            }
        }
        query
    }

    /// One SELECT, whose items are of `kinds` when they are given.
    fn select(&mut self, depth: usize, kinds: Option<&[Kind]>) -> Query {
        let (sources, scope) = self.from(depth);
        let filters = *self.rng.pick(&[0, 0, 1, 1, 1, 2]);
        let filters = (0..filters).map(|_| self.condition(&scope, 2)).collect();
        let mut query = Query { sources, filters, ..Query::default() };
        if self.rng.chance(45) {
            self.aggregate(&mut query, &scope, kinds);
            return query;
        }
        let wanted: Vec<Kind> = match kinds {
            Some(kinds) => kinds.to_vec(),
            None => (0..1 + self.rng.below(4)).map(|_| self.column(&scope).kind).collect(),
        };
        let windows = !scope.ids.is_empty() && kinds.is_none() && self.rng.chance(15);
        query.items = wanted.iter().map(|kind| self.value(&scope, *kind, 2)).collect();
        if windows {
            let window = self.window(&scope);
            query.items.push(window);
        } else if kinds.is_none() && !scope.ids.is_empty() && self.rng.chance(50) {
            query.items.push(Expr::leaf(Kind::Int, scope.ids[0].clone()));
        }
        query.distinct = self.rng.chance(12);
        query
    }

    fn aggregate(&mut self, query: &mut Query, scope: &Scope, kinds: Option<&[Kind]>) {
        let groups = if kinds.is_some() { 0 } else { *self.rng.pick(&[0, 1, 1, 1, 2]) };
        for _ in 0..groups {
            let kind = self.column(scope).kind;
            let depth = usize::from(self.rng.chance(30));
            // A constant would be taken for a position.
            let key =
                if depth == 0 { self.column_of(scope, kind) } else { self.value(scope, kind, 1) };
            query.items.push(key);
        }
        let found = (0..1 + self.rng.below(3)).map(|_| self.aggregated(scope)).collect();
        let above = Scope { columns: found, ids: Vec::new() };
        match kinds {
            Some(kinds) => {
                query.items = kinds.iter().map(|kind| self.value(&above, *kind, 1)).collect();
            }
            None => {
                for column in &above.columns {
                    let item = if self.rng.chance(20) {
                        self.value(&above, column.kind, 1)
                    } else {
                        column.clone()
                    };
                    query.items.push(item);
                }
            }
        }
        if self.rng.chance(25) {
            query.having.push(self.simple(&above, 1));
        }
        query.groups = Some(groups);
    }

    fn aggregated(&mut self, scope: &Scope) -> Expr {
        let column = self.column(scope);
        let of = if self.rng.chance(70) { column } else { self.value(scope, column.kind, 1) };
        let kind = of.kind;
        let name = of.sql();
        let narrow = [".a", ".s", ".i", ".k", ".n", ".q", ".id"].iter().any(|c| name.ends_with(c));
        let orderable = !matches!(kind, Kind::Bool | Kind::Bytes);
        let choice = self.rng.below(10);
        let (kind, pattern) = match choice {
            0 => (Kind::Int, "count($)"),
            1 => (Kind::Int, "count(DISTINCT $)"),
            2 | 3 if orderable => (kind, "min($)"),
            4 | 5 if orderable => (kind, "max($)"),
            6 if matches!(kind, Kind::Int | Kind::Decimal) => (kind, "sum($)"),
            7 if matches!(kind, Kind::Int | Kind::Decimal) && narrow => (kind, "sum(DISTINCT $)"),
            8 if narrow && kind == Kind::Decimal => (kind, "avg($)"),
            8 if narrow && kind == Kind::Int => (Kind::Float, "avg($)"),
            8 | 9 if narrow => (kind, "sum($)"),
            9 if kind == Kind::Bool => (kind, *self.rng.pick(&["bool_and($)", "bool_or($)"])),
            _ => return Expr::leaf(Kind::Int, "count(*)"),
        };
        if self.rng.chance(20) {
            let filter = self.simple(scope, 1);
            return Expr::node(kind, &format!("{pattern} FILTER (WHERE $)"), vec![of, filter]);
        }
        Expr::node(kind, pattern, vec![of])
    }

    fn window(&mut self, scope: &Scope) -> Expr {
        let (of, by) = (self.column(scope), self.column(scope));
        let order = scope.ids.join(", ");
        let (kind, call) = match self.rng.below(6) {
            0 => (Kind::Int, "row_number()"),
            1 => return Expr::node(Kind::Int, "rank() OVER (ORDER BY $)", vec![by]),
            2 => (of.kind, "lag($)"),
            3 => (Kind::Int, "count($)"),
            4 => (of.kind, "first_value($)"),
            _ => return Expr::node(Kind::Int, "count(*) OVER (PARTITION BY $)", vec![by]),
        };
        let kids = if call.contains('$') { vec![of, by] } else { vec![by] };
        Expr::node(kind, &format!("{call} OVER (PARTITION BY $ ORDER BY {order})"), kids)
    }

    fn from(&mut self, depth: usize) -> (Vec<From>, Scope) {
        let mut scope = Scope::default();
        let mut sources = Vec::new();
        let mut unique = true;
        for at in 0..*self.rng.pick(&[1, 1, 1, 2, 2, 3]) {
            let (what, alias, mut own) = self.relation(depth);
            unique &= !own.ids.is_empty();
            let mut join = "";
            let mut on = Vec::new();
            if at > 0 {
                join = *self.rng.pick(&[
                    "JOIN",
                    "JOIN",
                    "JOIN",
                    "LEFT JOIN",
                    "LEFT JOIN",
                    "RIGHT JOIN",
                    "FULL JOIN",
                    "LEFT SEMI JOIN",
                    "LEFT ANTI JOIN",
                ]);
                on.push(self.matching(&scope, &own));
                let mut both = scope.clone();
                both.columns.extend(own.columns.iter().cloned());
                if self.rng.chance(25) {
                    on.push(self.simple(&both, 1));
                }
            }
            if !matches!(join, "LEFT SEMI JOIN" | "LEFT ANTI JOIN") {
                scope.columns.append(&mut own.columns);
                scope.ids.append(&mut own.ids);
            }
            sources.push(From { join, what, alias, on });
        }
        if !unique {
            scope.ids.clear();
        }
        (sources, scope)
    }

    fn relation(&mut self, depth: usize) -> (Relation, String, Scope) {
        self.aliases += 1;
        let alias = format!("x{}", self.aliases);
        if depth > 0 && self.rng.chance(22) {
            let query = self.query(depth - 1);
            let column =
                |(at, item): (usize, &Expr)| Expr::leaf(item.kind, format!("{alias}.o{at}"));
            let columns = query.items.iter().enumerate().map(column).collect();
            let scope = Scope { columns, ids: Vec::new() };
            let common = self.rng.chance(40);
            let query = Box::new(query);
            let what = if common { Relation::Common(query) } else { Relation::Derived(query) };
            return (what, alias, scope);
        }
        let (table, scope) = self.table(&alias);
        (Relation::Table(table), alias, scope)
    }

    fn table(&mut self, alias: &str) -> (usize, Scope) {
        let at = self.rng.below(self.world.tables.len());
        let column = |name: &str| Expr::leaf(kind_of(name), format!("{alias}.{name}"));
        let columns = self.world.tables[at].columns.iter().map(|c| column(&c.name)).collect();
        (at, Scope { columns, ids: vec![format!("{alias}.id")] })
    }

    /// A condition between two relations: mostly an equality of columns.
    fn matching(&mut self, left: &Scope, right: &Scope) -> Expr {
        let mut pairs = Vec::new();
        for a in &left.columns {
            for b in right.columns.iter().filter(|b| b.kind == a.kind) {
                // The same column most of the time: others rarely match.
                let same = a.sql().rsplit('.').next() == b.sql().rsplit('.').next();
                pairs.extend(std::iter::repeat_n((a, b), if same { 3 } else { 1 }));
            }
        }
        if pairs.is_empty() {
            return Expr::leaf(Kind::Bool, "true");
        }
        let (a, b) = *self.rng.pick(&pairs);
        let pattern = if self.rng.chance(88) { "$ = $" } else { *self.rng.pick(&COMPARISONS) };
        Expr::node(Kind::Bool, pattern, vec![a.clone(), b.clone()])
    }

    /// A condition without subqueries.
    fn simple(&mut self, scope: &Scope, depth: usize) -> Expr {
        let kind = self.column(scope).kind;
        let node = |pattern: &str, kids| Expr::node(Kind::Bool, pattern, kids);
        if depth > 0 && self.rng.chance(35) {
            let (a, b) = (self.simple(scope, depth - 1), self.simple(scope, depth - 1));
            return match self.rng.below(6) {
                0 => node("(NOT $)", vec![a]),
                1 | 2 => node("($ OR $)", vec![a, b]),
                3 => node("($ IS NOT TRUE)", vec![a]),
                4 => node("(CASE WHEN $ THEN $ ELSE false END)", vec![a, b]),
                _ => node("($ AND $)", vec![a, b]),
            };
        }
        let of = if self.rng.chance(75) {
            self.column_of(scope, kind)
        } else {
            self.value(scope, kind, depth)
        };
        let not = if self.rng.chance(30) { "NOT " } else { "" };
        match self.rng.below(12) {
            0 => node(&format!("($ IS {not}NULL)"), vec![of]),
            1 | 2 => {
                let size = 1 + self.rng.below(4);
                let mut kids = vec![of];
                for _ in 0..size {
                    let null = Expr::leaf(kind, "NULL");
                    let item = if self.rng.chance(8) { null } else { self.near(&kids[0]) };
                    kids.push(item);
                }
                let marks = vec!["$"; size].join(", ");
                node(&format!("($ {not}IN ({marks}))"), kids)
            }
            3 => {
                let (low, high) = (self.near(&of), self.near(&of));
                node(&format!("($ {not}BETWEEN $ AND $)"), vec![of, low, high])
            }
            4 | 10 if kind == Kind::Text => {
                let pattern = *self.rng.pick(&PATTERNS);
                node(&format!("($ {not}LIKE {pattern})"), vec![of])
            }
            4 if kind == Kind::Bool => node(&format!("($ IS {not}TRUE)"), vec![of]),
            10 if kind == Kind::Text => node("(starts_with($, 'a'))", vec![of]),
            6 => {
                let other = self.value(scope, kind, depth);
                let pattern = *self.rng.pick(&COMPARISONS);
                node(&format!("({pattern})"), vec![of, other])
            }
            7 if kind == Kind::Int => {
                let other = self.column(scope);
                let (a, b) = if matches!(other.kind, Kind::Decimal | Kind::Float) {
                    (of, other)
                } else {
                    let constant = self.constant(Kind::Int);
                    (of, constant)
                };
                node("($ >= $)", vec![a, b])
            }
            8 if kind == Kind::Date => {
                let other = self.constant(Kind::Timestamp);
                node("($ < $)", vec![of, other])
            }
            _ => {
                let constant = self.near(&of);
                let pattern = *self.rng.pick(&COMPARISONS);
                node(&format!("({pattern})"), vec![of, constant])
            }
        }
    }

    /// A condition, in some cases with a subquery.
    fn condition(&mut self, scope: &Scope, depth: usize) -> Expr {
        if !self.rng.chance(18) {
            return self.simple(scope, depth);
        }
        self.aliases += 1;
        let alias = format!("x{}", self.aliases);
        let (table, inner) = self.table(&alias);
        let link = self.matching(scope, &inner);
        let filter = self.simple(&inner, 1);
        let not = if self.rng.chance(40) { "NOT " } else { "" };
        let from = format!("FROM {{t{table}}} AS {alias} WHERE");
        let of = self.column(&inner);
        let outer = self.column_of(scope, of.kind);
        let node = |pattern: &str, kids| Expr::node(Kind::Bool, pattern, kids);
        match self.rng.below(5) {
            0 | 1 => node(&format!("({not}EXISTS (SELECT 1 {from} $ AND $))"), vec![link, filter]),
            2 | 3 => node(&format!("($ {not}IN (SELECT $ {from} $))"), vec![outer, of, filter]),
            _ => {
                let least = *self.rng.pick(&["min", "max"]);
                if matches!(of.kind, Kind::Bool | Kind::Bytes) {
                    return node(
                        &format!("((SELECT count(*) {from} $ AND $) >= 1)"),
                        vec![link, filter],
                    );
                }
                let correlated =
                    if self.rng.chance(40) { link } else { Expr::leaf(Kind::Bool, "true") };
                node(
                    &format!("($ >= (SELECT {least}($) {from} $ AND $))"),
                    vec![outer, of, correlated, filter],
                )
            }
        }
    }

    fn constant(&mut self, kind: Kind) -> Expr {
        Expr::leaf(kind, literal(self.rng, kind, ""))
    }

    /// A constant to compare `of` with.
    fn near(&mut self, of: &Expr) -> Expr {
        let sql = of.sql();
        let column = sql.rsplit('.').next().unwrap_or_default();
        Expr::leaf(of.kind, literal(self.rng, of.kind, column))
    }

    fn column(&mut self, scope: &Scope) -> Expr {
        if scope.columns.is_empty() {
            return Expr::leaf(Kind::Int, "1");
        }
        self.rng.pick(&scope.columns).clone()
    }

    /// A column of the kind, or a constant when there is none.
    fn column_of(&mut self, scope: &Scope, kind: Kind) -> Expr {
        let found = scope.of(kind);
        if found.is_empty() { self.constant(kind) } else { (*self.rng.pick(&found)).clone() }
    }

    fn value(&mut self, scope: &Scope, kind: Kind, depth: usize) -> Expr {
        if depth == 0 || self.rng.chance(45) {
            return self.column_of(scope, kind);
        }
        let sub = |this: &mut Self, kind| this.value(scope, kind, depth - 1);
        match self.rng.below(8) {
            0 => {
                let when = self.simple(scope, 0);
                let (a, b) = (sub(self, kind), sub(self, kind));
                return Expr::node(kind, "(CASE WHEN $ THEN $ ELSE $ END)", vec![when, a, b]);
            }
            1 => {
                let (a, b) = (sub(self, kind), sub(self, kind));
                return Expr::node(kind, "coalesce($, $)", vec![a, b]);
            }
            2 => {
                let (a, b) = (sub(self, kind), self.constant(kind));
                return Expr::node(kind, "nullif($, $)", vec![a, b]);
            }
            _ => {}
        }
        let (pattern, of): (&str, &[Kind]) = match kind {
            Kind::Int => *self.rng.pick::<(&str, &[Kind])>(&[
                ("($ + 1)", &[Kind::Int]),
                ("($ * 2)", &[Kind::Int]),
                ("($ - $)", &[Kind::Int, Kind::Int]),
                ("(- $)", &[Kind::Int]),
                ("($ / 2)", &[Kind::Int]),
                ("($ % 3)", &[Kind::Int]),
                ("abs($)", &[Kind::Int]),
                ("character_length($)", &[Kind::Text]),
                ("CAST($ AS BIGINT)", &[Kind::Int]),
                ("CAST($ AS BIGINT)", &[Kind::Bool]),
                ("CAST(extract(year FROM $) AS BIGINT)", &[Kind::Date]),
                ("CAST(extract(month FROM $) AS BIGINT)", &[Kind::Timestamp]),
                ("TRY_CAST($ AS BIGINT)", &[Kind::Text]),
            ]),
            Kind::Decimal => *self.rng.pick::<(&str, &[Kind])>(&[
                ("($ + 1)", &[Kind::Decimal]),
                ("($ * 0.5)", &[Kind::Decimal]),
                ("($ - 0.01)", &[Kind::Decimal]),
                ("(- $)", &[Kind::Decimal]),
                ("abs($)", &[Kind::Decimal]),
                ("CAST($ AS DECIMAL(30,3))", &[Kind::Int]),
                ("($ * $)", &[Kind::Decimal, Kind::Int]),
            ]),
            Kind::Float => *self.rng.pick::<(&str, &[Kind])>(&[
                ("abs($)", &[Kind::Float]),
                ("(- $)", &[Kind::Float]),
                ("CAST($ AS DOUBLE)", &[Kind::Int]),
                ("CAST($ AS DOUBLE)", &[Kind::Decimal]),
                ("CAST($ AS DOUBLE)", &[Kind::Float]),
                ("($ + $)", &[Kind::Float, Kind::Float]),
                ("($ * CAST('2' AS DOUBLE))", &[Kind::Float]),
            ]),
            Kind::Text => *self.rng.pick::<(&str, &[Kind])>(&[
                ("($ || 'x')", &[Kind::Text]),
                ("upper($)", &[Kind::Text]),
                ("lower($)", &[Kind::Text]),
                ("trim($)", &[Kind::Text]),
                ("substr($, 1, 2)", &[Kind::Text]),
                ("CAST($ AS VARCHAR)", &[Kind::Int]),
                ("CAST($ AS VARCHAR)", &[Kind::Date]),
                ("CAST($ AS VARCHAR)", &[Kind::Bool]),
                ("CAST($ AS VARCHAR)", &[Kind::Text]),
            ]),
            Kind::Date => *self.rng.pick::<(&str, &[Kind])>(&[
                ("CAST($ AS DATE)", &[Kind::Timestamp]),
                ("CAST(($ + INTERVAL '1 month') AS DATE)", &[Kind::Date]),
                ("CAST(($ - INTERVAL '1 day') AS DATE)", &[Kind::Date]),
                ("CAST(date_trunc('month', $) AS DATE)", &[Kind::Date]),
            ]),
            Kind::Timestamp => *self.rng.pick::<(&str, &[Kind])>(&[
                ("date_trunc('day', $)", &[Kind::Timestamp]),
                ("($ + INTERVAL '1 hour')", &[Kind::Timestamp]),
                ("($ - INTERVAL '1 month')", &[Kind::Timestamp]),
                ("CAST($ AS TIMESTAMP)", &[Kind::Timestamp]),
                ("CAST($ AS TIMESTAMP(6))", &[Kind::Date]),
            ]),
            Kind::Moment => *self.rng.pick::<(&str, &[Kind])>(&[
                ("($ + INTERVAL '1 hour')", &[Kind::Moment]),
                ("date_trunc('hour', $)", &[Kind::Moment]),
            ]),
            Kind::Bool => return self.simple(scope, depth - 1),
            Kind::Bytes => return self.column_of(scope, kind),
        };
        let kids = of.iter().map(|kind| sub(self, *kind)).collect();
        Expr::node(kind, pattern, kids)
    }
}
