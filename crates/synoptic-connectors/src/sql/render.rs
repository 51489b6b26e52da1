//! The walk over a condition.

use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::expr::{BinaryExpr, Like};
use datafusion::logical_expr::{Expr, Operator};
use synoptic_types::Reason;

use super::compare::{compare, in_list};
use super::like::{Pattern, ignores_case};
use super::literal::{Plain, plain};
use super::operand::is_condition;
use super::value::{Binding, Class, Condition};
use super::{Columns, Dialect};

/// Deeper expressions stay here: sources bound their own parsers, too. Chains of AND and OR of
/// any length count as one level.
const MAX_DEPTH: usize = 64;

/// A chain longer than this is rendered as a balanced tree: SQLite bounds the depth of an
/// expression, and reads `a OR b OR c …` as a list.
const MAX_FLAT_CHAIN: usize = 64;

/// What a walk needs to know.
#[derive(Clone, Copy)]
pub(super) struct Renderer<'a> {
    pub schema: &'a Schema,
    pub columns: &'a dyn Columns,
    pub dialect: &'a dyn Dialect,
    /// Values that cannot be delivered are looked for: see [`super::Columns::unchecked`].
    pub guarded: bool,
    /// Arithmetic that may overflow is rendered so that it fails then. Otherwise it stays here.
    pub fails_on_overflow: bool,
    /// The value is stored in a column, for just the rows it is computed for: so that what fails
    /// at the source fails the statement, as it would have here.
    pub assigning: bool,
}

impl Renderer<'_> {
    /// A whole filter.
    pub(super) fn filter(&self, expr: &Expr) -> Result<String, Reason> {
        Ok(self.condition(expr, 0)?.at_least(Binding::And))
    }

    pub(super) fn deeper(&self, depth: usize) -> Result<usize, Reason> {
        if depth >= MAX_DEPTH {
            let what = format!("an expression nested deeper than {MAX_DEPTH} levels");
            return Err(Reason::NotOnAllowList(what));
        }
        Ok(depth + 1)
    }

    /// The column `name` as the engine sees it.
    pub(super) fn field(&self, name: &str) -> Result<&Field, Reason> {
        let field = self.schema.field_with_name(name);
        field.map_err(|_| Reason::NotOnAllowList(format!("column {name} of another table")))
    }

    /// A condition: true, false or unknown.
    pub(super) fn condition(&self, expr: &Expr, depth: usize) -> Result<Condition, Reason> {
        let depth = self.deeper(depth)?;
        match expr {
            Expr::Alias(alias) => self.condition(&alias.expr, depth),
            Expr::BinaryExpr(binary) if matches!(binary.op, Operator::And | Operator::Or) => {
                self.chain(binary, depth)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let left = self.operand(left, depth)?;
                let right = self.operand(right, depth)?;
                compare(left, *op, right, self.dialect)
            }
            Expr::Not(inner) => {
                let inner = self.condition(inner, depth)?.at_least(Binding::Atom);
                Ok(Condition::new(format!("NOT {inner}"), Binding::Not))
            }
            Expr::IsNull(inner) => self.is_null(inner, "IS NULL", depth),
            Expr::IsNotNull(inner) => self.is_null(inner, "IS NOT NULL", depth),
            Expr::IsTrue(inner) => self.is(inner, "IS TRUE", depth),
            Expr::IsNotTrue(inner) => self.is(inner, "IS NOT TRUE", depth),
            Expr::IsFalse(inner) => self.is(inner, "IS FALSE", depth),
            Expr::IsNotFalse(inner) => self.is(inner, "IS NOT FALSE", depth),
            Expr::IsUnknown(inner) => {
                self.is(inner, &format!("IS {}", self.dialect.unknown()), depth)
            }
            Expr::IsNotUnknown(inner) => {
                self.is(inner, &format!("IS NOT {}", self.dialect.unknown()), depth)
            }
            Expr::Between(between) => {
                // As DataFusion evaluates it.
                let value = self.operand(&between.expr, depth)?;
                let low = self.operand(&between.low, depth)?;
                let high = self.operand(&between.high, depth)?;
                let low = compare(value.clone(), Operator::GtEq, low, self.dialect)?;
                let high = compare(value, Operator::LtEq, high, self.dialect)?;
                let both = format!("{} AND {}", low.sql, high.sql);
                Ok(if between.negated {
                    Condition::new(format!("NOT ({both})"), Binding::Not)
                } else {
                    Condition::new(both, Binding::And)
                })
            }
            Expr::InList(list) => {
                let subject = self.operand(&list.expr, depth)?;
                let mut items = Vec::with_capacity(list.list.len());
                for item in &list.list {
                    items.push(self.operand(item, depth)?);
                }
                in_list(subject, items, list.negated, self.dialect)
            }
            Expr::Like(like) => self.like(like, depth),
            Expr::ScalarFunction(call) if is_condition(call) => self.test(call, depth),
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::ScalarFunction(_) => {
                let operand = self.operand(expr, depth)?;
                match operand.class {
                    Class::Bool | Class::Null => Ok(Condition::new(operand.sql, Binding::Atom)),
                    class => {
                        Err(Reason::NotOnAllowList(format!("{} as a condition", class.noun())))
                    }
                }
            }
            other => Err(Reason::NotOnAllowList(kind(other).to_owned())),
        }
    }

    /// A chain of AND or of OR, however it is nested and however long it is.
    fn chain(&self, chain: &BinaryExpr, depth: usize) -> Result<Condition, Reason> {
        let mut terms = Vec::new();
        let mut waiting: Vec<&Expr> = vec![&chain.right, &chain.left];
        while let Some(next) = waiting.pop() {
            match next {
                Expr::BinaryExpr(inner) if inner.op == chain.op => {
                    waiting.push(&inner.right);
                    waiting.push(&inner.left);
                }
                term => {
                    let term = self.condition(term, depth)?;
                    // AND binds tighter than OR, yet people read parentheses more easily.
                    let needed =
                        if chain.op == Operator::And { Binding::And } else { Binding::Not };
                    terms.push(term.at_least(needed));
                }
            }
        }
        let (word, binding) = match chain.op {
            Operator::And => (" AND ", Binding::And),
            _ => (" OR ", Binding::Or),
        };
        Ok(Condition::new(balanced(&terms, word), binding))
    }

    fn is_null(&self, inner: &Expr, test: &str, depth: usize) -> Result<Condition, Reason> {
        // Whatever a column's values are, NULL is NULL on both sides.
        let sql = match inner {
            Expr::Column(column) => {
                self.field(&column.name)?;
                let column = &column.name;
                let operand = self.columns.null_operand(column);
                operand.unwrap_or_else(|| self.dialect.quote_identifier(column))
            }
            other => self.operand(other, depth)?.sql,
        };
        Ok(Condition::new(format!("{sql} {test}"), Binding::Comparison))
    }

    fn is(&self, inner: &Expr, test: &str, depth: usize) -> Result<Condition, Reason> {
        let inner = self.condition(inner, depth)?.at_least(Binding::Atom);
        Ok(Condition::new(format!("{inner} {test}"), Binding::Comparison))
    }

    fn like(&self, like: &Like, depth: usize) -> Result<Condition, Reason> {
        if like.case_insensitive {
            return Err(ignores_case());
        }
        if like.escape_char.is_some_and(|escape| escape != '\\') {
            return Err(Reason::NotOnAllowList("LIKE with its own escape character".to_owned()));
        }
        let value = self.operand(&like.expr, depth)?;
        let pattern = self.operand(&like.pattern, depth)?;
        let pattern = match &pattern.literal {
            Some(literal) => match plain(literal)? {
                Plain::Text(text) => Pattern::read(text),
                _ => return Err(Reason::NotOnAllowList("LIKE without a text".to_owned())),
            },
            None => return Err(Reason::NotOnAllowList("LIKE with a varying pattern".to_owned())),
        };
        if value.class != Class::Text || value.literal.is_some() {
            return Err(Reason::DifferentMeaning(format!("LIKE on {}", value.class.noun())));
        }
        let sql = self.dialect.like(&value, &pattern)?;
        Ok(if like.negated {
            Condition::new(format!("NOT ({sql})"), Binding::Not)
        } else {
            Condition::new(sql, Binding::Comparison)
        })
    }
}

/// The terms joined by `word`, as a list or, when there are many, as a balanced tree.
fn balanced(terms: &[String], word: &str) -> String {
    if terms.len() <= MAX_FLAT_CHAIN {
        return terms.join(word);
    }
    let (left, right) = terms.split_at(terms.len() / 2);
    format!("({}){word}({})", balanced(left, word), balanced(right, word))
}

/// What to call an expression that is not on the list.
fn kind(expr: &Expr) -> &'static str {
    match expr {
        Expr::SimilarTo(_) => "SIMILAR TO",
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) => "a subquery",
        Expr::SetComparison(_) => "a comparison with a subquery",
        Expr::OuterReferenceColumn(..) => "a column of the outer query",
        Expr::Placeholder(_) => "a parameter without a value",
        Expr::AggregateFunction(_) => "an aggregate",
        Expr::WindowFunction(_) => "a window function",
        Expr::Negative(_) => "arithmetic",
        _ => "this kind of expression",
    }
}
