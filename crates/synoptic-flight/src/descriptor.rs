//! What a descriptor or a ticket asks for.

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Any, Command};
use prost::Message;

use crate::status::{Fault, Result};

/// Commands of Flight SQL start with this in their `Any`.
const COMMAND_PREFIX: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    /// A statement as text.
    Sql(String),
    /// A command of Flight SQL.
    Command(Box<Command>),
}

/// Reads a descriptor: a Flight SQL command, the text of a statement, `{"sql_query": …}`, or the
/// path of a table in one to three parts.
pub(crate) fn read_descriptor(descriptor: &FlightDescriptor) -> Result<Asked> {
    match DescriptorType::try_from(descriptor.r#type) {
        Ok(DescriptorType::Path) => Ok(Asked::Sql(select_path(&descriptor.path)?)),
        // A client that says no type means the only other one.
        Ok(DescriptorType::Cmd | DescriptorType::Unknown) => {
            read_bytes(&descriptor.cmd, "descriptor")
        }
        Err(_) => Err(Fault::malformed(format!(
            "there is no descriptor of type {}; send a command or a path",
            descriptor.r#type
        ))),
    }
}

/// Reads a ticket: ours, a Flight SQL command, the text of a statement, or `{"sql_query": …}`.
pub(crate) fn read_ticket(ticket: &[u8]) -> Result<Asked> {
    read_bytes(ticket, "ticket")
}

/// Reads the `Any` of a command or of an action's body.
pub(crate) fn read_any(bytes: &[u8]) -> Option<Any> {
    Any::decode(bytes).ok().filter(|any| any.type_url.starts_with(COMMAND_PREFIX))
}

/// A statement that reads a whole table.
pub(crate) fn select_path(path: &[String]) -> Result<String> {
    if path.is_empty() || path.len() > 3 || path.iter().any(String::is_empty) {
        return Err(Fault::malformed(format!(
            "a path has one to three parts, [catalog,] [schema,] table; this one has {} or an \
             empty one",
            path.len()
        )));
    }
    Ok(format!("SELECT * FROM {}", path.iter().map(|p| quoted(p)).collect::<Vec<_>>().join(".")))
}

/// A name in SQL, exactly as it is.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn read_bytes(bytes: &[u8], what: &str) -> Result<Asked> {
    if let Some(any) = read_any(bytes) {
        let url = any.type_url.clone();
        return match Command::try_from(any) {
            Ok(Command::Unknown(_)) => Err(Fault::unsupported(format!(
                "this server does not know the command {}",
                url.trim_start_matches(COMMAND_PREFIX)
            ))),
            Ok(command) => Ok(Asked::Command(Box::new(command))),
            Err(error) => Err(Fault::malformed(format!(
                "the {what}'s {} cannot be read: {error}",
                url.trim_start_matches(COMMAND_PREFIX)
            ))),
        };
    }
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| is_text(text)) else {
        return Err(Fault::malformed(format!(
            "the {what} is neither a command of Flight SQL nor the text of a statement"
        )));
    };
    if let Some(sql) = sql_of_json(text) {
        return Ok(Asked::Sql(sql));
    }
    if text.trim().is_empty() {
        return Err(Fault::malformed(format!("the {what} is empty: send a statement")));
    }
    Ok(Asked::Sql(text.to_owned()))
}

/// Whether it can be a statement: no control characters but white space.
fn is_text(text: &str) -> bool {
    // An `Any` of another protocol starts with a line feed and a length.
    let foreign = text.starts_with('\n') && text.contains("type.googleapis.com/");
    !foreign && !text.chars().any(|c| c.is_control() && !c.is_whitespace())
}

/// The statement of `{"sql_query": "…"}`, which InfluxDB's clients send.
fn sql_of_json(text: &str) -> Option<String> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.get("sql_query")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests;
