//! `[sources.*]` and their replicas, as the connectors want them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value as Json};
use synoptic_types::{CopyName, SourceName};

use crate::document::{self, Entry, Table, Value, join};
use crate::error::Problems;
use crate::nearest::{hint, nearest};

const MAX_NAME_BYTES: usize = 128;

/// Copies of a source; each is a set of connections and is asked where it is.
const MAX_REPLICAS: usize = 64;

/// `[sources.NAME]`: a connector and what it is told. `Debug` shows no values.
#[derive(Clone, PartialEq)]
pub struct SourceConfig {
    /// The source's name, its catalog in SQL.
    pub name: SourceName,
    /// The connector's name.
    pub connector: String,
    /// Every key but `connector` and `replicas`, expanded. Secrets are in here.
    pub options: Map<String, Json>,
    /// `[[sources.NAME.replicas]]`, in their order.
    pub replicas: Vec<ReplicaConfig>,
    /// `[sources.NAME.system_time]`: tables that keep their earlier states, and the columns that
    /// say from when until when a row was in force.
    pub system_time: BTreeMap<TableText, [String; 2]>,
}

/// `[[sources.NAME.replicas]]`: another place where the source can be read. `Debug` shows no
/// values.
#[derive(Clone, PartialEq)]
pub struct ReplicaConfig {
    /// Its name in the source, never `primary`.
    pub name: CopyName,
    /// The connector's name.
    pub connector: String,
    /// Every key that is the connector's own, expanded. Secrets are in here.
    pub options: Map<String, Json>,
    /// Tables that are called otherwise there: the source's name to the replica's.
    pub tables: BTreeMap<TableText, TableText>,
}

/// A table as a configuration names it: without a schema the default one is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableText {
    /// The schema, when there is one.
    pub schema: Option<String>,
    /// The table.
    pub name: String,
}

impl fmt::Debug for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceConfig")
            .field("name", &self.name)
            .field("connector", &self.connector)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .field("replicas", &self.replicas)
            .field("system_time", &self.system_time.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl fmt::Debug for ReplicaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaConfig")
            .field("name", &self.name)
            .field("connector", &self.connector)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .field("tables", &self.tables)
            .finish()
    }
}

impl TableText {
    /// Reads `table` or `schema.table`; either may stand in double quotes, which are doubled
    /// inside.
    fn read(text: &str) -> Option<Self> {
        let (first, rest) = part(text)?;
        if rest.is_empty() {
            return Some(Self { schema: None, name: first });
        }
        let (name, rest) = part(rest.strip_prefix('.')?)?;
        rest.is_empty().then_some(Self { schema: Some(first), name })
    }
}

/// One name at the beginning of `text`, and what follows it.
fn part(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return (!name.is_empty()).then_some((name, after)),
        }
    }
}

/// Where a table of the file stands and what may be its connector.
struct Place<'a> {
    /// As errors name it.
    key: &'a str,
    line: usize,
    connectors: &'a [&'a str],
}

/// A mistake and its line.
type Mistake = (usize, String);

pub(crate) fn check_sources(
    table: &Table,
    connectors: &[&str],
    problems: &mut Problems,
) -> Vec<SourceConfig> {
    let mut sources = Vec::new();
    for (name, entry) in table {
        match check_source(name, entry, connectors, problems) {
            Ok(source) => sources.push(source),
            Err((line, message)) => problems.add(line, message),
        }
    }
    sources
}

fn check_source(
    name: &str,
    entry: &Entry,
    connectors: &[&str],
    problems: &mut Problems,
) -> Result<SourceConfig, Mistake> {
    let key = join(&["sources", name]);
    check_name(name, "source").map_err(|why| (entry.line, format!("key '{key}': {why}")))?;
    let Value::Table(table) = &entry.value else {
        let message = format!("key '{key}' takes a table, not {}", entry.value.kind());
        return Err((entry.line, message));
    };
    let place = Place { key: &key, line: entry.line, connectors };
    let connector = connector(table, &place)?.ok_or_else(|| missing_connector(table, &place))?;
    let replicas = match table.get("replicas") {
        None => Vec::new(),
        Some(entry) => check_replicas(&key, entry, &connector, connectors, problems)?,
    };
    let system_time = check_system_time(table.get("system_time"), &key)?;
    let mut options = document::to_json(table);
    for ours in ["connector", "replicas", "system_time"] {
        options.remove(ours);
    }
    Ok(SourceConfig { name: SourceName::new(name), connector, options, replicas, system_time })
}

/// What `connector` says, when it is there.
fn connector(table: &Table, place: &Place<'_>) -> Result<Option<String>, Mistake> {
    let Some(entry) = table.get("connector") else { return Ok(None) };
    let key = place.key;
    let Value::Scalar(scalar) = &entry.value else {
        let message = format!("key '{key}.connector' takes text, not {}", entry.value.kind());
        return Err((entry.line, message));
    };
    if !place.connectors.contains(&scalar.text.as_str()) {
        let hint = hint(&scalar.text, "connectors", place.connectors);
        let message =
            format!("key '{key}.connector': there is no connector '{}'{hint}", scalar.raw);
        return Err((entry.line, message));
    }
    Ok(Some(scalar.text.clone()))
}

fn missing_connector(table: &Table, place: &Place<'_>) -> Mistake {
    let hint = misspelt("connector", table)
        .unwrap_or_else(|| format!("; the connectors are {}", place.connectors.join(", ")));
    (place.line, format!("key '{}.connector' is missing{hint}", place.key))
}

/// A key of `table` that may be meant for `wanted`.
fn misspelt(wanted: &str, table: &Table) -> Option<String> {
    nearest(wanted, table.keys().map(String::as_str))
        .filter(|key| strsim::damerau_levenshtein(key, wanted) <= 3)
        .map(|key| format!("; is it '{key}' that you mean?"))
}

fn check_replicas(
    source: &str,
    entry: &Entry,
    connector: &str,
    connectors: &[&str],
    problems: &mut Problems,
) -> Result<Vec<ReplicaConfig>, Mistake> {
    let Value::Array(entries) = &entry.value else {
        let message = format!(
            "key '{source}.replicas' takes a list of tables, not {}: write [[{source}.replicas]]",
            entry.value.kind()
        );
        return Err((entry.line, message));
    };
    if entries.len() > MAX_REPLICAS {
        let message = format!("key '{source}.replicas' has more than {MAX_REPLICAS} replicas");
        return Err((entry.line, message));
    }
    let mut replicas: Vec<ReplicaConfig> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let key = format!("{source}.replicas.{index}");
        let place = Place { key: &key, line: entry.line, connectors };
        match check_replica(entry, connector, &place) {
            Ok(replica) if replicas.iter().any(|known| known.name == replica.name) => {
                let name = replica.name;
                let message = format!("key '{key}.name': '{name}' is the name of another replica");
                problems.add(entry.line, message);
            }
            Ok(replica) => replicas.push(replica),
            Err((line, message)) => problems.add(line, message),
        }
    }
    Ok(replicas)
}

fn check_replica(
    entry: &Entry,
    default_connector: &str,
    place: &Place<'_>,
) -> Result<ReplicaConfig, Mistake> {
    let key = place.key;
    let Value::Table(table) = &entry.value else {
        let message = format!("key '{key}' takes a table, not {}", entry.value.kind());
        return Err((place.line, message));
    };
    let Some(name) = table.get("name") else {
        let hint = misspelt("name", table).unwrap_or_default();
        return Err((place.line, format!("key '{key}.name' is missing{hint}")));
    };
    let Value::Scalar(text) = &name.value else {
        return Err((name.line, format!("key '{key}.name' takes text, not {}", name.value.kind())));
    };
    let wrong = |why| (name.line, format!("key '{key}.name': {why}"));
    if text.is_expanded() {
        return Err(wrong("a name stands in the file itself".to_owned()));
    }
    check_name(&text.text, "replica").map_err(wrong)?;
    let connector = connector(table, place)?.unwrap_or_else(|| default_connector.to_owned());
    let mut options = document::to_json(table);
    for ours in ["name", "connector", "tables"] {
        options.remove(ours);
    }
    let (tables, declared) = check_tables(table.get("tables"), key)?;
    if !declared.is_empty() {
        options.insert("tables".to_owned(), Json::Object(declared));
    }
    Ok(ReplicaConfig { name: CopyName::new(text.text.as_str()), connector, options, tables })
}

fn check_system_time(
    entry: Option<&Entry>,
    key: &str,
) -> Result<BTreeMap<TableText, [String; 2]>, Mistake> {
    let Some(entry) = entry else { return Ok(BTreeMap::new()) };
    let key = format!("{key}.system_time");
    let Value::Table(tables) = &entry.value else {
        let message = format!("key '{key}' takes a table, not {}", entry.value.kind());
        return Err((entry.line, message));
    };
    let columns = |(name, entry): (&String, &Entry)| {
        let place = format!("{key}.{}", join(&[name]));
        let table = TableText::read(name).ok_or_else(|| not_a_table(&place, name, entry.line))?;
        let texts = match &entry.value {
            Value::Array(columns) => columns.iter().map(|column| match column.value.to_json() {
                Json::String(text) if !text.is_empty() => Some(text),
                _ => None,
            }),
            _ => return Err((entry.line, two_columns(&place))),
        };
        match texts.collect::<Option<Vec<_>>>().map(<[String; 2]>::try_from) {
            Some(Ok(columns)) => Ok((table, columns)),
            _ => Err((entry.line, two_columns(&place))),
        }
    };
    tables.iter().map(columns).collect()
}

fn two_columns(key: &str) -> String {
    format!(
        "key '{key}' takes the names of two columns, of the moment from which a row is in force \
         and of that from which it is not any more: ['sys_from', 'sys_to']"
    )
}

fn not_a_table(key: &str, text: &str, line: usize) -> Mistake {
    let message = format!(
        "key '{key}': '{text}' is not the name of a table: write 'table' or 'schema.table', with \
         names that have dots in double quotes"
    );
    (line, message)
}

/// Texts say how a table is called; what is a table itself is the connector's own.
type Tables = (BTreeMap<TableText, TableText>, Map<String, Json>);

fn check_tables(entry: Option<&Entry>, key: &str) -> Result<Tables, Mistake> {
    let Some(entry) = entry else { return Ok(Tables::default()) };
    let Value::Table(tables) = &entry.value else {
        let message = format!("key '{key}.tables' takes a table, not {}", entry.value.kind());
        return Err((entry.line, message));
    };
    let (mut mapped, mut declared) = Tables::default();
    for (ours, entry) in tables {
        let place = format!("{key}.tables.{}", join(&[ours]));
        let wrong = |text: &str| not_a_table(&place, text, entry.line);
        match &entry.value {
            Value::Scalar(theirs) if matches!(entry.value.to_json(), Json::String(_)) => {
                let from = TableText::read(ours).ok_or_else(|| wrong(ours))?;
                let to = TableText::read(&theirs.text).ok_or_else(|| wrong(&theirs.raw))?;
                mapped.insert(from, to);
            }
            Value::Table(_) => {
                declared.insert(ours.clone(), entry.value.to_json());
            }
            other => {
                let message =
                    format!("key '{place}' takes the name of a table, not {}", other.kind());
                return Err((entry.line, message));
            }
        }
    }
    Ok((mapped, declared))
}

fn check_name(name: &str, what: &str) -> Result<(), String> {
    let reserved: &[&str] = match what {
        "replica" => &["primary"],
        _ => &["synoptic", "information_schema"],
    };
    if name.is_empty() {
        return Err(format!("a {what} needs a name"));
    }
    if reserved.iter().any(|word| name.eq_ignore_ascii_case(word)) {
        return Err(format!("'{name}' is reserved; choose another name"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("the name is longer than {MAX_NAME_BYTES} bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err("the name has a control character".to_owned());
    }
    Ok(())
}
