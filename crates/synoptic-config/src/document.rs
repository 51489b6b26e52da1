//! TOML as a tree that knows its lines, with every string expanded.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Number, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::Problems;
use crate::expand::{Environment, expand};

pub(crate) type Table = BTreeMap<String, Entry>;

/// A key and its value.
#[derive(Clone, PartialEq)]
pub(crate) struct Entry {
    /// Where the key stands, from 1.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    /// Each with the line it begins on.
    Array(Vec<Entry>),
    Table(Table),
}

/// A value as text, whatever its TOML type.
#[derive(Clone, PartialEq)]
pub(crate) struct Scalar {
    /// As it stands in the file: the only form that may be shown.
    pub(crate) raw: String,
    /// With `${…}` expanded.
    pub(crate) text: String,
    /// What was expanded into it.
    secrets: Vec<String>,
    json: Json,
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scalar").field(&self.raw).finish()
    }
}

impl Scalar {
    /// Whether a part of it came from outside the file.
    pub(crate) fn is_expanded(&self) -> bool {
        self.raw != self.text
    }
}

impl Value {
    /// The value for a connector.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Scalar(scalar) => scalar.json.clone(),
            Self::Array(values) => {
                Json::Array(values.iter().map(|entry| entry.value.to_json()).collect())
            }
            Self::Table(table) => Json::Object(to_json(table)),
        }
    }

    /// What it is, for "takes …, not …".
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(scalar) => match scalar.json {
                Json::Bool(_) => "true or false",
                Json::Number(_) => "a number",
                _ => "text",
            },
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// Every text below that must not be shown, with what may stand for it.
    pub(crate) fn secrets(&self, found: &mut Vec<(String, String)>) {
        match self {
            Self::Scalar(scalar) if scalar.is_expanded() => {
                found.push((scalar.text.clone(), scalar.raw.clone()));
                found.extend(scalar.secrets.iter().map(|s| (s.clone(), "${…}".to_owned())));
            }
            Self::Scalar(_) => {}
            Self::Array(values) => values.iter().for_each(|entry| entry.value.secrets(found)),
            Self::Table(table) => table.values().for_each(|entry| entry.value.secrets(found)),
        }
    }
}

pub(crate) fn to_json(table: &Table) -> Map<String, Json> {
    table.iter().map(|(key, entry)| (key.clone(), entry.value.to_json())).collect()
}

/// The line of the deepest key on `path` that stands in `table`; a number is a place in a list,
/// from 0.
pub(crate) fn line_of<S: AsRef<str>>(table: &Table, path: &[S]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let entry = table.get(first.as_ref())?;
    let below = match &entry.value {
        Value::Table(table) => line_of(table, rest),
        Value::Array(values) => {
            let inside = |entry: &Entry| match &entry.value {
                Value::Table(table) => line_of(table, rest),
                _ => None,
            };
            match rest.first().and_then(|first| first.as_ref().parse::<usize>().ok()) {
                Some(index) => values.get(index).map(|entry| match &entry.value {
                    Value::Table(table) => line_of(table, &rest[1..]).unwrap_or(entry.line),
                    _ => entry.line,
                }),
                // Without an index, the first that has the key.
                None => values.iter().find_map(inside),
            }
        }
        Value::Scalar(_) => None,
    };
    Some(below.unwrap_or(entry.line))
}

/// `server.listen`, `sources."My Source".url`.
pub(crate) fn join(path: &[&str]) -> String {
    let bare = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    let quoted =
        path.iter().map(|key| if bare(key) { (*key).to_owned() } else { format!("{key:?}") });
    quoted.collect::<Vec<_>>().join(".")
}

/// Reads `text`. What cannot be read is added to `problems` and left out.
pub(crate) fn read(text: &str, environment: &Environment<'_>, problems: &mut Problems) -> Table {
    let (document, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::of(text);
    for error in &errors {
        let line = error.span().map(|span| lines.at(span.start));
        problems.add(line, format!("this is not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        // What was recovered is guesswork; errors about it would only confuse.
        return Table::new();
    }
    let mut reader = Reader { lines, environment, problems };
    reader.table(document.get_ref(), &mut Vec::new())
}

struct Reader<'a> {
    lines: Lines,
    environment: &'a Environment<'a>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn table<'t>(&mut self, table: &'t DeTable<'_>, path: &mut Vec<&'t str>) -> Table {
        let mut entries = Table::new();
        for (key, value) in table {
            path.push(key.get_ref());
            let line = self.lines.at(key.span().start);
            if let Some(value) = self.value(value, path) {
                entries.insert(key.get_ref().to_string(), Entry { line, value });
            }
            path.pop();
        }
        entries
    }

    fn value<'t>(
        &mut self,
        value: &'t Spanned<DeValue<'_>>,
        path: &mut Vec<&'t str>,
    ) -> Option<Value> {
        let line = self.lines.at(value.span().start);
        Some(match value.get_ref() {
            DeValue::Table(table) => Value::Table(self.table(table, path)),
            DeValue::Array(array) => {
                let values = array.iter().filter_map(|value| {
                    let line = self.lines.at(value.span().start);
                    Some(Entry { line, value: self.value(value, path)? })
                });
                Value::Array(values.collect())
            }
            scalar => match self.scalar(scalar) {
                Ok(scalar) => Value::Scalar(scalar),
                Err(why) => {
                    self.problems.add(line, format!("key '{}': {why}", join(path)));
                    return None;
                }
            },
        })
    }

    fn scalar(&self, value: &DeValue<'_>) -> Result<Scalar, String> {
        let (text, json) = match value {
            DeValue::String(raw) => {
                let expanded = expand(raw, self.environment)?;
                return Ok(Scalar {
                    raw: raw.to_string(),
                    json: Json::String(expanded.text.clone()),
                    text: expanded.text,
                    secrets: expanded.secrets,
                });
            }
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix())
                    .map_err(|_| format!("{integer} is beyond 64 bits"))?;
                (number.to_string(), Json::Number(number.into()))
            }
            DeValue::Float(float) => {
                let number: f64 = float.as_str().parse().unwrap_or(f64::NAN);
                let json = Number::from_f64(number)
                    .ok_or_else(|| format!("{float} is not a finite number"))?;
                (number.to_string(), Json::Number(json))
            }
            DeValue::Boolean(flag) => (flag.to_string(), Json::Bool(*flag)),
            DeValue::Datetime(moment) => (moment.to_string(), Json::String(moment.to_string())),
            DeValue::Array(_) | DeValue::Table(_) => {
                return Err("a list or table is not a single value".to_owned());
            }
        };
        Ok(Scalar { raw: text.clone(), text, secrets: Vec::new(), json })
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let after_newline =
            text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self(after_newline.collect())
    }

    /// The line, from 1, of the byte at `offset`.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
}
