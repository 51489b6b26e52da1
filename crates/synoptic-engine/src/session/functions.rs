//! Functions that answer from the session: `current_catalog`, `current_schema()`, `current_user`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// A function without arguments that is one text for the whole statement.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    aliases: Vec<String>,
    value: Option<String>,
    signature: Signature,
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(self.value.clone())))
    }
}

/// The functions of a session whose names are looked up in `catalog` and `schema`, and which has
/// seen what `token` stands for.
pub(super) fn of_session(
    catalog: &str,
    schema: &str,
    token: &Option<String>,
) -> [Arc<ScalarUDF>; 5] {
    let constant = |name, aliases: &[&str], value: Option<&str>| {
        Arc::new(ScalarUDF::from(Constant {
            name,
            aliases: aliases.iter().map(|&a| a.to_owned()).collect(),
            value: value.map(str::to_owned),
            signature: Signature::nullary(Volatility::Immutable),
        }))
    };
    [
        constant("current_catalog", &["current_database"], Some(catalog)),
        constant("current_schema", &[], Some(schema)),
        constant("current_user", &["session_user", "user"], Some("anonymous")),
        constant("version", &[], Some(concat!("Synoptic ", env!("CARGO_PKG_VERSION")))),
        constant("synoptic_token", &[], token.as_deref()),
    ]
}
