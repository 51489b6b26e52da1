//! The actions SetSessionOptions, GetSessionOptions and CloseSession. Their bodies are plain
//! protobuf, not wrapped in `Any`.
//!
//! The options are `catalog`, `schema` and `synoptic.NAME` for every option of SQL's `SET`. Values
//! of any kind are taken, as their text; all are given back as text.

use std::collections::BTreeMap;

use prost::Message;
use synoptic_engine::Session;
use synoptic_proto::session::session_option_value::OptionValue;
use synoptic_proto::session::set_session_options_result::{Error, ErrorValue};
use synoptic_proto::session::{
    CloseSessionResult, GetSessionOptionsResult, SessionOptionValue, SetSessionOptionsRequest,
    SetSessionOptionsResult, close_session_result,
};
use synoptic_types::QueryOptions;

use crate::status::{Fault, Result};

/// Sets options. What cannot be set is named in the result, and does not hinder the others.
pub(crate) async fn set(session: &Session, defaults: &Session, body: &[u8]) -> Result<Vec<u8>> {
    let request = SetSessionOptionsRequest::decode(body)
        .map_err(|e| Fault::malformed(format!("SetSessionOptions cannot be read: {e}")))?;
    let mut errors = BTreeMap::new();
    // In alphabetical order the catalog comes before the schema, which is looked up in it.
    for (name, value) in request.session_options {
        let outcome = match text(value.option_value) {
            Ok(Some(value)) => set_one(session, &name, &value).await,
            Ok(None) => reset_one(session, defaults, &name).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            errors.insert(name, Error { value: error.into() });
        }
    }
    Ok(SetSessionOptionsResult { errors }.encode_to_vec())
}

/// Every option with its value.
pub(crate) fn get(session: &Session) -> Vec<u8> {
    let mut options = BTreeMap::from([
        ("catalog".to_owned(), session.catalog()),
        ("schema".to_owned(), session.schema()),
    ]);
    let in_force = session.options();
    for name in QueryOptions::NAMES {
        if let Ok(value) = in_force.get(name) {
            options.insert(format!("synoptic.{name}"), value);
        }
    }
    let value = |text| SessionOptionValue { option_value: Some(OptionValue::StringValue(text)) };
    let session_options = options.into_iter().map(|(name, text)| (name, value(text))).collect();
    GetSessionOptionsResult { session_options }.encode_to_vec()
}

/// The answer of CloseSession.
pub(crate) fn closed() -> Vec<u8> {
    CloseSessionResult { status: close_session_result::Status::Closed.into() }.encode_to_vec()
}

async fn set_one(session: &Session, name: &str, value: &str) -> Result<(), ErrorValue> {
    match name {
        "catalog" => session.set_catalog(value).map_err(|_| ErrorValue::InvalidValue),
        "schema" => session.set_schema(value).await.map_err(|_| ErrorValue::InvalidValue),
        name => {
            let option = known(name)?;
            session.set_option(option, value).map_err(|_| ErrorValue::InvalidValue)
        }
    }
}

async fn reset_one(session: &Session, defaults: &Session, name: &str) -> Result<(), ErrorValue> {
    match name {
        "catalog" => session.set_catalog(&defaults.catalog()).map_err(|_| ErrorValue::Error),
        "schema" => session.set_schema(&defaults.schema()).await.map_err(|_| ErrorValue::Error),
        name => session.reset_option(known(name)?).map_err(|_| ErrorValue::Error),
    }
}

/// The option's own name, when there is one of that name.
fn known(name: &str) -> Result<&'static str, ErrorValue> {
    let plain = name.strip_prefix("synoptic.").unwrap_or(name).replace('-', "_");
    QueryOptions::NAMES
        .into_iter()
        .find(|option| option.eq_ignore_ascii_case(&plain))
        .ok_or(ErrorValue::InvalidName)
}

/// A value as `SET` would have it; none when the option is to be erased.
fn text(value: Option<OptionValue>) -> Result<Option<String>, ErrorValue> {
    Ok(match value {
        None => None,
        Some(OptionValue::StringValue(text)) => Some(text),
        Some(OptionValue::BoolValue(on)) => Some(if on { "on" } else { "off" }.to_owned()),
        Some(OptionValue::Int64Value(number)) => Some(number.to_string()),
        Some(OptionValue::DoubleValue(number)) => Some(number.to_string()),
        Some(OptionValue::StringListValue(list)) => match list.values.as_slice() {
            [one] => Some(one.clone()),
            // No option is a list.
            _ => return Err(ErrorValue::InvalidValue),
        },
    })
}
