//! `+`, `-`, `*` and negation of integers, and `+`, `-`, `*` and `/` of decimals, that fail when the
//! result does not fit, as in PostgreSQL.
//!
//! DataFusion's operators wrap around: `9223372036854775807 + 1` would be a negative number; and a
//! decimal of 38 digits gets a 39th, which is then shown as another number. They are replaced by
//! functions with the same text and type, at two moments. Before each round of optimisation those
//! over constants, so that folding them fails too; after optimisation the rest, so that the
//! optimizer and the sources still see operators. Decimals that cannot overflow are computed by
//! these functions, too, where they are shown or aggregated: they are quicker with small values
//! than the operators (`small_decimals`). Conditions that a source applies stay
//! operators: connectors send only arithmetic that cannot overflow, or that fails at the source.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Datum, new_empty_array};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type,
    Field, FieldRef,
};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::float_keys::{equal_keys, with_one_nan};
use super::not_null;
use super::small_decimals::{self, Operation};

/// Replaces operators over constants. It must stand before the rules that fold constants.
#[derive(Debug)]
pub(crate) struct CheckedConstants;

impl OptimizerRule for CheckedConstants {
    fn name(&self) -> &str {
        "checked_constants"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        replace(plan, Replaced::Constants)
    }
}

/// Replaces what is left in an optimized plan.
pub(crate) fn checked(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_down_with_subqueries(|plan| match plan {
        // Its filters are the source's.
        LogicalPlan::TableScan(_) => Ok(Transformed::no(plan)),
        plan => replace(plan, Replaced::All)?.map_data(equal_keys),
    })?;
    Ok(plan.data)
}

#[derive(Clone, Copy, PartialEq)]
enum Replaced {
    Constants,
    All,
}

/// Whether decimals are computed in `plan` to be seen, and not to decide about rows: what filters and
/// joins say is read by the planner as operators.
fn shows(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_))
}

fn replace(plan: LogicalPlan, which: Replaced) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&scan.projected_schema);
    }
    // An aggregate is called after the text of its FILTER, which does not ask the function.
    let names = NamePreserver::new(&plan);
    let shows = which == Replaced::All && shows(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let nullable = expr.nullable(&schema);
        let changed = expr.transform_up(|expr| {
            let wanted = which == Replaced::All || is_constant(&expr);
            Ok(if wanted { replaced(expr, &schema, shows) } else { Transformed::no(expr) })
        })?;
        let changed = changed.update_data(|expr| match (&nullable, expr.nullable(&schema)) {
            (Ok(false), Ok(true)) if shows => not_null::known(expr),
            _ => expr,
        });
        Ok(changed.update_data(|expr| name.restore(expr)))
    })
}

/// Neither rows nor parameters nor subqueries decide its value.
fn is_constant(expr: &Expr) -> bool {
    let varies = expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
        ))
    });
    matches!(varies, Ok(false))
}

fn replaced(expr: Expr, schema: &DFSchema, shown: bool) -> Transformed<Expr> {
    let is_integer =
        |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| data_type.is_integer());
    if makes_nan(&expr, schema) {
        return Transformed::yes(with_one_nan(expr));
    }
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match Checked::of(op) {
            // Other types are checked already, or cannot overflow.
            Some(function)
                if is_integer(&left) && is_integer(&right) && function != Checked::Divide
                    || function.fills_decimals(&left, &right, schema)
                    || shown && function.may_be_small(&left, &right, schema) =>
            {
                Transformed::yes(function.call(vec![*left, *right]))
            }
            _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        },
        // DataFusion plans these as comparisons, which could be NULL, and then misses its own schema.
        Expr::IsTrue(of) if shown => Transformed::yes(either(*of, true)),
        Expr::IsNotTrue(of) if shown => Transformed::yes(either(*of, false)),
        Expr::IsFalse(of) if shown => Transformed::yes(either(!*of, true)),
        Expr::IsNotFalse(of) if shown => Transformed::yes(either(!*of, false)),
        Expr::Negative(operand) if is_integer(&operand) => {
            Transformed::yes(Checked::Negate.call(vec![*operand]))
        }
        other => Transformed::no(other),
    }
}

/// Whether an expression computes a floating-point number, which then may be none.
fn makes_nan(expr: &Expr, schema: &DFSchema) -> bool {
    let computes = match expr {
        Expr::Negative(_) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) => op.is_numerical_operators(),
        Expr::ScalarFunction(call) => !HAND_ON.contains(&call.func.name()),
        _ => false,
    };
    computes && expr.get_type(schema).is_ok_and(|data_type| data_type.is_floating())
}

/// Functions that answer one of their arguments.
const HAND_ON: [&str; 9] =
    ["coalesce", "nullif", "greatest", "least", "nvl", "nvl2", "ifnull", "float_key", "not_null"];

/// `then` where `condition` is true, else the contrary; never NULL.
fn either(condition: Expr, then: bool) -> Expr {
    let branches = vec![(Box::new(condition), Box::new(lit(then)))];
    Expr::Case(Case::new(None, branches, Some(Box::new(lit(!then)))))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Checked {
    Add,
    Subtract,
    Multiply,
    /// Of decimals: integers fail by themselves.
    Divide,
    Negate,
}

impl Checked {
    fn of(operator: Operator) -> Option<Self> {
        match operator {
            Operator::Plus => Some(Self::Add),
            Operator::Minus => Some(Self::Subtract),
            Operator::Multiply => Some(Self::Multiply),
            Operator::Divide => Some(Self::Divide),
            _ => None,
        }
    }

    /// Whether the result is a decimal of as many digits as there can be, so that one more digit
    /// would not have grown the type.
    fn fills_decimals(self, left: &Expr, right: &Expr, schema: &DFSchema) -> bool {
        let types = [left, right].map(|side| side.get_type(schema));
        let [Ok(left), Ok(right)] = types else { return false };
        match self.result_type(&[left, right]) {
            Ok(DataType::Decimal128(digits, _)) => digits == DECIMAL128_MAX_PRECISION,
            Ok(DataType::Decimal256(digits, _)) => digits == DECIMAL256_MAX_PRECISION,
            _ => false,
        }
    }

    /// What [`small_decimals`] can do.
    fn operation(self) -> Option<Operation> {
        match self {
            Self::Add => Some(Operation::Add),
            Self::Subtract => Some(Operation::Subtract),
            Self::Multiply => Some(Operation::Multiply),
            Self::Divide | Self::Negate => None,
        }
    }

    fn may_be_small(self, left: &Expr, right: &Expr, schema: &DFSchema) -> bool {
        let is_decimal = |side: &Expr| {
            side.get_type(schema).is_ok_and(|t| matches!(t, DataType::Decimal128(..)))
        };
        self.operation().is_some() && is_decimal(left) && is_decimal(right)
    }

    /// The type of the result for operands of these types: that of the operator.
    fn result_type(self, types: &[DataType]) -> Result<DataType> {
        let empty: Vec<ArrayRef> = types.iter().map(new_empty_array).collect();
        let datums: Vec<&dyn Datum> = empty.iter().map(|array| array as &dyn Datum).collect();
        Ok(self.compute(&datums)?.data_type().clone())
    }

    /// The operator it stands for, over the same operands.
    fn operator(self, args: &[Expr]) -> Option<Expr> {
        let binary = |op| match args {
            [left, right] => Some(Expr::BinaryExpr(BinaryExpr::new(
                Box::new(left.clone()),
                op,
                Box::new(right.clone()),
            ))),
            _ => None,
        };
        match (self, args) {
            (Self::Add, _) => binary(Operator::Plus),
            (Self::Subtract, _) => binary(Operator::Minus),
            (Self::Multiply, _) => binary(Operator::Multiply),
            (Self::Divide, _) => binary(Operator::Divide),
            (Self::Negate, [operand]) => Some(Expr::Negative(Box::new(operand.clone()))),
            (Self::Negate, _) => None,
        }
    }

    fn call(self, args: Vec<Expr>) -> Expr {
        static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 5]> = LazyLock::new(|| {
            [Checked::Add, Checked::Subtract, Checked::Multiply, Checked::Divide, Checked::Negate]
                .map(|function| Arc::new(ScalarUDF::from(CheckedFunction::new(function))))
        });
        let function = Arc::clone(&FUNCTIONS[self as usize]);
        Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
    }

    /// `result` is the type that it has.
    fn compute_as(self, args: &[&dyn Datum], result: &DataType) -> Result<ArrayRef, ArrowError> {
        if let (Some(operation), [left, right]) = (self.operation(), args)
            && let Some(small) = small_decimals::compute(operation, *left, *right, result)
        {
            return Ok(Arc::new(small));
        }
        self.compute(args)
    }

    fn compute(self, args: &[&dyn Datum]) -> Result<ArrayRef, ArrowError> {
        let result = match (self, args) {
            (Self::Add, [left, right]) => numeric::add(*left, *right),
            (Self::Subtract, [left, right]) => numeric::sub(*left, *right),
            (Self::Multiply, [left, right]) => numeric::mul(*left, *right),
            (Self::Divide, [left, right]) => numeric::div(*left, *right),
            (Self::Negate, [operand]) => numeric::neg(operand.get().0),
            _ => {
                Err(ArrowError::InvalidArgumentError(format!("{self:?} of {} values", args.len())))
            }
        }?;
        // The kernels look at 128 or 256 bits, not at the digits.
        match result.data_type() {
            DataType::Decimal128(digits, _) => {
                result.as_primitive::<Decimal128Type>().validate_decimal_precision(*digits)?;
            }
            DataType::Decimal256(digits, _) => {
                result.as_primitive::<Decimal256Type>().validate_decimal_precision(*digits)?;
            }
            _ => {}
        }
        Ok(result)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedFunction {
    function: Checked,
    signature: Signature,
}

impl CheckedFunction {
    fn new(function: Checked) -> Self {
        // Made only from operators whose operands agree by now.
        Self { function, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for CheckedFunction {
    fn name(&self) -> &str {
        match self.function {
            Checked::Add => "checked_add",
            Checked::Subtract => "checked_subtract",
            Checked::Multiply => "checked_multiply",
            Checked::Divide => "checked_divide",
            Checked::Negate => "checked_negate",
        }
    }

    /// The operator's text: columns keep the names they have.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let operator = self.function.operator(args);
        Ok(operator.map_or_else(|| self.name().to_owned(), |e| e.schema_name().to_string()))
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let operator = self.function.operator(args);
        Ok(operator.map_or_else(|| self.name().to_owned(), |e| e.to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.result_type(types)
    }

    /// NULL only from a NULL, as the operator says: the schema of the plan around it is not made
    /// again when the operator is replaced.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let datums: Vec<Box<dyn Datum>> = args
            .args
            .iter()
            .map(|arg| -> Result<Box<dyn Datum>> {
                Ok(match arg {
                    ColumnarValue::Array(array) => Box::new(Arc::clone(array)),
                    ColumnarValue::Scalar(scalar) => Box::new(scalar.to_scalar()?),
                })
            })
            .collect::<Result<_>>()?;
        let datums: Vec<&dyn Datum> = datums.iter().map(AsRef::as_ref).collect();
        let result = self.function.compute_as(&datums, args.return_field.data_type())?;
        Ok(if scalars {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)
        } else {
            ColumnarValue::Array(result)
        })
    }
}
