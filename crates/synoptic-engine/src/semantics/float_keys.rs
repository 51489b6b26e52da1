//! Floating-point numbers that are equal are equal for an order, too, and there is one NaN.
//!
//! DataFusion sorts by bits: a negative zero comes before zero, while its comparisons take them for equal;
//! and the first rows of an order, which it finds by both, are then different ones from run to run. A NaN
//! whose sign bit is set comes before everything, for orders and comparisons, and whether it is set after
//! `a - b` depends on which operand the processor took first. As in PostgreSQL, zeros are equal and NaN is
//! one value above all others: sorts are by keys that say so, and what is computed has one NaN.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type,
};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::expr::{ScalarFunction, Sort};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// What a node sorts by, with one value for numbers that are equal.
pub(super) fn equal_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(mut sort) => {
            sort.expr = keys(sort.expr, sort.input.schema());
            Ok(LogicalPlan::Sort(sort))
        }
        LogicalPlan::Window(mut window) => {
            let schema = Arc::clone(window.input.schema());
            for expr in &mut window.window_expr {
                let name = NamePreserver::new_for_projection().save(expr);
                let changed = std::mem::take(expr).transform_up(|expr| match expr {
                    Expr::WindowFunction(mut call) => {
                        let params = &mut call.params;
                        params.order_by = keys(std::mem::take(&mut params.order_by), &schema);
                        Ok(Transformed::yes(Expr::WindowFunction(call)))
                    }
                    other => Ok(Transformed::no(other)),
                })?;
                *expr = name.restore(changed.data);
            }
            Ok(LogicalPlan::Window(window))
        }
        other => Ok(other),
    }
}

fn keys(keys: Vec<Sort>, schema: &DFSchema) -> Vec<Sort> {
    let is_float = |key: &Expr| key.get_type(schema).is_ok_and(|data_type| data_type.is_floating());
    let keys = keys.into_iter().map(|key| match is_float(&key.expr) {
        true => Sort { expr: equal(key.expr), ..key },
        false => key,
    });
    keys.collect()
}

fn equal(expr: Expr) -> Expr {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Unified::function(Equals::All));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FUNCTION), vec![expr]))
}

/// Makes every NaN the same.
static ONE_NAN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Unified::function(Equals::Nan));

/// The number that `expr` computes, with the one NaN when it is none.
pub(super) fn with_one_nan(expr: Expr) -> Expr {
    // What is computed of a NaN is one, and is seen to last.
    let expr = match bare(expr) {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (left, right) = (Box::new(bare(*left)), Box::new(bare(*right)));
            Expr::BinaryExpr(BinaryExpr { left, op, right })
        }
        Expr::Negative(operand) => Expr::Negative(Box::new(bare(*operand))),
        other => other,
    };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&ONE_NAN), vec![expr]))
}

fn bare(expr: Expr) -> Expr {
    match expr {
        Expr::ScalarFunction(mut call) if Arc::ptr_eq(&call.func, &ONE_NAN) => {
            call.args.pop().map_or(Expr::ScalarFunction(call), bare)
        }
        other => other,
    }
}

/// Which numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Equals {
    Nan,
    /// The zeros, too.
    All,
}

/// A number, the same for those that are equal.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unified {
    equals: Equals,
    signature: Signature,
}

impl Unified {
    fn function(equals: Equals) -> Arc<ScalarUDF> {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(ScalarUDF::from(Self { equals, signature }))
    }
}

impl ScalarUDFImpl for Unified {
    fn name(&self) -> &str {
        match self.equals {
            Equals::Nan => "one_nan",
            Equals::All => "float_key",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// NULL only from a NULL.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = args.arg_fields.first().ok_or_else(no_number)?;
        Ok(Arc::new(Field::new(self.name(), field.data_type().clone(), field.is_nullable())))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.first().cloned().ok_or_else(no_number)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.first().ok_or_else(no_number)?;
        let values = match value {
            ColumnarValue::Array(array) => Arc::clone(array),
            ColumnarValue::Scalar(scalar) => scalar.to_array()?,
        };
        let zeros = self.equals == Equals::All;
        macro_rules! one_value {
            ($type:ty, $zero:expr, $nan:expr) => {
                Arc::new(values.as_primitive::<$type>().unary::<_, $type>(|value| match value {
                    value if value.is_nan() => $nan,
                    // Adding zero takes the sign off the other zero.
                    value if zeros => value + $zero,
                    value => value,
                })) as ArrayRef
            };
        }
        let values = match values.data_type() {
            DataType::Float64 => one_value!(Float64Type, 0.0, f64::NAN),
            DataType::Float32 => one_value!(Float32Type, 0.0, f32::NAN),
            DataType::Float16 => one_value!(Float16Type, Half::ZERO, Half::NAN),
            _ => return Err(no_number()),
        };
        Ok(match value {
            ColumnarValue::Array(_) => ColumnarValue::Array(values),
            ColumnarValue::Scalar(_) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)
            }
        })
    }
}

fn no_number() -> datafusion::common::DataFusionError {
    internal_datafusion_err!("a function of floating-point numbers got another type")
}
