//! Values inside conditions: columns, casts, CASE, a few functions.

use arrow::datatypes::DataType;
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::{Expr, Operator, Volatility};
use synoptic_types::Reason;

use super::arithmetic;
use super::compare::compare;
use super::like::Pattern;
use super::literal::{Plain, plain};
use super::render::Renderer;
use super::value::{Binding, Class, Collation, Condition, Operand, is_micros, is_nanos};

impl Renderer<'_> {
    /// A value.
    pub(super) fn operand(&self, expr: &Expr, depth: usize) -> Result<Operand, Reason> {
        let depth = self.deeper(depth)?;
        match expr {
            Expr::Alias(alias) => self.operand(&alias.expr, depth),
            Expr::Column(column) => self.column(&column.name),
            Expr::Literal(value, _) => self.dialect.literal(value),
            Expr::Cast(cast) => self.cast(&cast.expr, cast.field.data_type(), depth),
            // What does not fit is NULL there.
            Expr::TryCast(cast) if is_nanos(cast.field.data_type()) => {
                Err(Reason::NotOnAllowList("TRY_CAST to nanoseconds".to_owned()))
            }
            // Other casts that are exact never fail, so both kinds are one.
            Expr::TryCast(cast) => self.cast(&cast.expr, cast.field.data_type(), depth),
            Expr::Case(case) => self.case(case, depth),
            Expr::ScalarFunction(call) if !is_condition(call) => self.function(call, depth),
            Expr::Negative(inner) if self.dialect.arithmetic() => {
                arithmetic::negate(self.operand(inner, depth)?)
            }
            Expr::BinaryExpr(binary)
                if (self.dialect.arithmetic() || self.assigning) && is_arithmetic(binary.op) =>
            {
                let left = self.operand(&binary.left, depth)?;
                let right = self.operand(&binary.right, depth)?;
                let integers = |o: &Operand| matches!(o.class, Class::Int { .. });
                let both = integers(&left) && integers(&right);
                if !both && !self.dialect.arithmetic() {
                    return Err(Reason::NotOnAllowList("arithmetic but on integers".to_owned()));
                }
                if self.assigning && both {
                    return arithmetic::failing(left, binary.op, right);
                }
                arithmetic::combine(left, binary.op, right, self.fails_on_overflow)
            }
            other => Ok(self.choosing().condition(other, depth)?.into_operand()),
        }
    }

    /// For what is compared within a value that is stored: what overflows there need not fail.
    fn choosing(&self) -> Self {
        match self.assigning {
            true => Self { assigning: false, fails_on_overflow: false, ..*self },
            false => *self,
        }
    }

    fn column(&self, name: &str) -> Result<Operand, Reason> {
        let field = self.field(name)?;
        let facts = self.columns.facts(name).ok_or_else(|| {
            Reason::DifferentMeaning(format!("column {name} is not compared at the source"))
        })?;
        let operand = self.dialect.column(name, field.data_type(), &facts)?;
        match self.columns.unchecked(name) {
            Some(label) if self.guarded => self.dialect.checked(operand, label),
            _ => Ok(operand),
        }
    }

    fn cast(&self, inner: &Expr, to: &DataType, depth: usize) -> Result<Operand, Reason> {
        let operand = self.operand(inner, depth)?;
        let refused = || {
            let from = operand.class.noun();
            Reason::NotOnAllowList(format!("a cast from {from} to {to}"))
        };
        let class = Class::of(to).ok_or_else(refused)?;
        match (operand.class, class) {
            // Between the ways to lay out a text.
            (Class::Text | Class::Uuid, Class::Text) | (Class::Binary, Class::Binary) => {
                Ok(operand)
            }
            // Between names of the same time zone.
            (Class::Moment, Class::Moment)
            | (Class::Timestamp, Class::Timestamp)
            | (Class::Time, Class::Time)
                if is_micros(to) =>
            {
                Ok(operand)
            }
            // A literal would be converted, not only its type.
            _ if operand.literal.is_some() => Err(refused()),
            // To a coarser unit, which cuts. Every value of a finer one is the same moment.
            (from @ (Class::Moment | Class::Timestamp | Class::Time), class)
                if from == class && !is_nanos(to) =>
            {
                Err(refused())
            }
            // Half away from zero, here as there; too many digits fail.
            (Class::Decimal { .. }, Class::Decimal { digits, scale })
                if self.assigning && self.dialect.arithmetic() && scale >= 0 =>
            {
                let sql = format!("CAST({} AS numeric({digits},{scale}))", operand.sql);
                Ok(Operand::new(sql, class, to))
            }
            (from, class) if from == class => Ok(operand),
            (_, class) => self.dialect.cast(operand, to, class),
        }
    }

    fn case(&self, case: &Case, depth: usize) -> Result<Operand, Reason> {
        if case.expr.is_some() {
            return Err(Reason::NotOnAllowList("CASE with a value to compare".to_owned()));
        }
        let mut branches = Vec::with_capacity(case.when_then_expr.len());
        for (when, then) in &case.when_then_expr {
            branches.push((self.choosing().condition(when, depth)?, self.operand(then, depth)?));
        }
        let otherwise = match &case.else_expr {
            Some(expr) => Some(self.operand(expr, depth)?),
            None => None,
        };
        choose(branches, otherwise)
    }

    fn function(&self, call: &ScalarFunction, depth: usize) -> Result<Operand, Reason> {
        self.allowed(call)?;
        let mut args = Vec::with_capacity(call.args.len());
        let within = if call.name() == "nullif" { self.choosing() } else { *self };
        for arg in &call.args {
            args.push(within.operand(arg, depth)?);
        }
        let refused = || Reason::NotOnAllowList(format!("{}() of these arguments", call.name()));
        match (call.name(), args.as_slice()) {
            ("abs", [of])
                if of.literal.is_none()
                    && matches!(of.class, Class::Decimal { .. } | Class::Float64) =>
            {
                let sql = format!("abs({})", arithmetic::calculable(of));
                Ok(Operand::new(sql, of.class, &of.data_type))
            }
            ("character_length", [of])
                if of.class == Class::Text
                    && of.literal.is_none()
                    && matches!(of.data_type, DataType::Utf8 | DataType::Utf8View) =>
            {
                let class = Class::Int { min: 0, max: i128::from(i32::MAX) };
                Ok(Operand::new(format!("char_length({})", of.sql), class, &DataType::Int32))
            }
            ("coalesce", [_, _, ..]) => {
                let mut args = args;
                let last = args.pop();
                let branches = args.into_iter().map(|arg| {
                    let present = format!("{} IS NOT NULL", arg.sql);
                    (Condition::new(present, Binding::Comparison), arg)
                });
                choose(branches.collect(), last)
            }
            ("nullif", [a, b])
                if [a, b].iter().any(|of| matches!(of.class, Class::Float32 | Class::Float64)) =>
            {
                Err(Reason::DifferentMeaning(
                    "nullif() tells the two floating-point zeros apart here".to_owned(),
                ))
            }
            ("nullif", [a, b]) => {
                let same = compare(a.clone(), Operator::Eq, b.clone(), self.dialect)?;
                let null = Operand::new("NULL", Class::Null, &DataType::Null);
                choose(vec![(same, null)], Some(a.clone()))
            }
            _ => Err(refused()),
        }
    }

    /// A function whose answer is true or false.
    pub(super) fn test(&self, call: &ScalarFunction, depth: usize) -> Result<Condition, Reason> {
        self.allowed(call)?;
        let [subject, part] = call.args.as_slice() else {
            return Err(Reason::NotOnAllowList(format!("{}()", call.name())));
        };
        let subject = self.operand(subject, depth)?;
        let part = self.operand(part, depth)?;
        let text = match &part.literal {
            Some(literal) if subject.class == Class::Text && subject.literal.is_none() => {
                plain(literal)?
            }
            _ => {
                return Err(Reason::NotOnAllowList(format!(
                    "{}() of other than a text and a literal",
                    call.name()
                )));
            }
        };
        match (call.name(), text) {
            (_, Plain::Text("")) => {
                Err(Reason::NotOnAllowList(format!("{}() of an empty text", call.name())))
            }
            ("contains", Plain::Text(_)) => {
                let sql = self.dialect.contains(&subject, &part);
                Ok(Condition::new(sql, Binding::Comparison))
            }
            ("starts_with", Plain::Text(text)) => {
                let sql = self.dialect.like(&subject, &Pattern::prefix(text))?;
                Ok(Condition::new(sql, Binding::Comparison))
            }
            _ => Err(Reason::NotOnAllowList(format!("{}()", call.name()))),
        }
    }

    fn allowed(&self, call: &ScalarFunction) -> Result<(), Reason> {
        if call.func.signature().volatility == Volatility::Volatile {
            return Err(Reason::Volatile(format!("{}()", call.name())));
        }
        if !self.dialect.functions().contains(&call.name()) {
            return Err(Reason::NotOnAllowList(format!("{}()", call.name())));
        }
        Ok(())
    }
}

/// Functions that answer a question rather than give a value.
pub(super) fn is_condition(call: &ScalarFunction) -> bool {
    matches!(call.name(), "contains" | "starts_with")
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
}

/// `CASE WHEN … THEN … ELSE … END` over values of one class.
fn choose(
    branches: Vec<(Condition, Operand)>,
    otherwise: Option<Operand>,
) -> Result<Operand, Reason> {
    let mut sql = "CASE".to_owned();
    let mut class = Class::Null;
    let mut data_type = DataType::Null;
    let values = branches.iter().map(|(_, value)| value).chain(&otherwise);
    for value in values {
        if !class.agrees(value.class) || value.class == Class::Uuid {
            return Err(Reason::DifferentMeaning(format!(
                "{} and {} are the results of one CASE",
                class.noun(),
                value.class.noun()
            )));
        }
        class = class.union(value.class);
        if data_type == DataType::Null {
            data_type = value.data_type.clone();
        }
    }
    for (when, then) in branches {
        sql.push_str(&format!(" WHEN {} THEN {}", when.sql, arithmetic::calculable(&then)));
    }
    if let Some(otherwise) = otherwise {
        sql.push_str(&format!(" ELSE {}", arithmetic::calculable(&otherwise)));
    }
    sql.push_str(" END");
    let mut chosen = Operand::new(sql, class, &data_type).with_collation(Collation::Mixed);
    if data_type == DataType::Int64 {
        // Literals alone make an `integer` of it, in which a calculation may overflow.
        chosen.widened_to = Some("int8");
    }
    Ok(chosen)
}
