//! Floating-point numbers that are equal are equal for an order, too.
//!
//! DataFusion sorts by bits: a negative zero comes before zero, and a NaN whose sign bit is set (as that of
//! `0.0 / 0.0` is) before everything, while its comparisons take zeros for equal; and the first rows of an
//! order, which it finds by both, are then different ones from run to run. As in PostgreSQL, zeros are equal
//! and NaN is one value above all others.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, internal_datafusion_err};
use datafusion::logical_expr::expr::{ScalarFunction, Sort};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
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
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(FloatKey::new())));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FUNCTION), vec![expr]))
}

/// A number as it is compared.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatKey {
    signature: Signature,
}

impl FloatKey {
    fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for FloatKey {
    fn name(&self) -> &str {
        "float_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.first().cloned().ok_or_else(no_number)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.first().ok_or_else(no_number)?;
        let values = value.to_array(args.number_rows)?;
        macro_rules! one_value {
            ($type:ty, $zero:expr, $nan:expr) => {
                Arc::new(values.as_primitive::<$type>().unary::<_, $type>(|value| {
                    // Adding zero takes the sign off the other zero.
                    if value.is_nan() { $nan } else { value + $zero }
                })) as ArrayRef
            };
        }
        let keys = match values.data_type() {
            DataType::Float64 => one_value!(Float64Type, 0.0, f64::NAN),
            DataType::Float32 => one_value!(Float32Type, 0.0, f32::NAN),
            DataType::Float16 => one_value!(Float16Type, Half::ZERO, Half::NAN),
            _ => return Err(no_number()),
        };
        Ok(ColumnarValue::Array(keys))
    }
}

fn no_number() -> datafusion::common::DataFusionError {
    internal_datafusion_err!("float_key() of what is no floating-point number")
}
