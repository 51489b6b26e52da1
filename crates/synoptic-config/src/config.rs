//! The whole file, checked.

use std::fmt;
use std::path::{Path, PathBuf};

use synoptic_types::QueryOptions;

use crate::document::{self, Entry, Scalar, Table, Value, join, line_of};
use crate::error::{ConfigError, ConfigErrors, Problems};
use crate::expand::Environment;
use crate::keys::{self, Key, SECTIONS};
use crate::nearest::hint;
use crate::settings::{
    ClockConfig, ClockSource, FreshnessConfig, ServerConfig, Settings, is_loopback,
};
use crate::sources::{SourceConfig, check_sources};

/// The name a text without a file has in errors, and the file that commands look for.
const DEFAULT_FILE: &str = "synoptic.toml";

/// Larger files are refused before they are read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[query]`: what sessions start with.
    pub query: QueryOptions,
    /// `[freshness]`.
    pub freshness: FreshnessConfig,
    /// `[clock]`.
    pub clock: ClockConfig,
    /// `[sources.*]`, by name.
    pub sources: Vec<SourceConfig>,
    /// The folder that relative paths are relative to.
    pub base_dir: PathBuf,
    file: String,
    document: Table,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("file", &self.file)
            .field("server", &self.server)
            .field("query", &self.query)
            .field("freshness", &self.freshness)
            .field("clock", &self.clock)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    /// The defaults and no sources; relative paths are relative to the current folder.
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            server: settings.server,
            query: settings.query,
            freshness: settings.freshness,
            clock: settings.clock,
            sources: Vec::new(),
            base_dir: PathBuf::from("."),
            file: DEFAULT_FILE.to_owned(),
            document: Table::new(),
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`; `connectors` are the names `connector` may have.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its line.
    pub fn load(path: &Path, connectors: &[&str]) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let whole = |message: String| ConfigError { file: file.clone(), line: None, message };
        let length =
            std::fs::metadata(path).map_err(|e| whole(format!("cannot read it: {e}")))?.len();
        if length > MAX_FILE_BYTES {
            return Err(whole(format!("it has {length} bytes, more than {MAX_FILE_BYTES}")).into());
        }
        let bytes = std::fs::read(path).map_err(|e| whole(format!("cannot read it: {e}")))?;
        let text =
            String::from_utf8(bytes).map_err(|_| whole("it is not UTF-8 text".to_owned()))?;
        let base_dir = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        Self::read(&text, &file, base_dir, connectors, &|name| std::env::var(name).ok())
    }

    /// Checks `text`, whose relative paths are relative to `base_dir`.
    ///
    /// # Errors
    /// Everything that is wrong with the text, each with its line.
    pub fn parse(text: &str, base_dir: &Path, connectors: &[&str]) -> Result<Self, ConfigErrors> {
        Self::read(text, DEFAULT_FILE, base_dir, connectors, &|name| std::env::var(name).ok())
    }

    pub(crate) fn read(
        text: &str,
        file: &str,
        base_dir: &Path,
        connectors: &[&str],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = Problems::default();
        let environment = Environment { variable, base_dir };
        let document = document::read(text, &environment, &mut problems);
        let mut settings = Settings::default();
        let mut sources = Vec::new();
        for (name, entry) in &document {
            match (&entry.value, name.as_str()) {
                (Value::Table(table), "sources") => {
                    sources = check_sources(table, connectors, &mut problems);
                }
                (Value::Table(table), section) if SECTIONS.contains(&section) => {
                    check_section(section, table, &mut settings, &mut problems);
                }
                (_, known) if known == "sources" || SECTIONS.contains(&known) => {
                    let message =
                        format!("key '{known}' takes a table, not {}", entry.value.kind());
                    problems.add(entry.line, message);
                }
                (_, unknown) => {
                    let sections = [&SECTIONS[..], &["sources"]].concat();
                    let key = join(&[unknown]);
                    let hint = hint(unknown, "sections", &sections);
                    problems.add(entry.line, format!("key '{key}' is unknown{hint}"));
                }
            }
        }
        if problems.is_empty() {
            check_together(&settings, &document, &mut problems);
        }
        if let Some(folder) = &mut settings.server.spill_dir {
            *folder = base_dir.join(&*folder);
        }
        settings.clock.segment = base_dir.join(&settings.clock.segment);
        let config = Self {
            server: settings.server,
            query: settings.query,
            freshness: settings.freshness,
            clock: settings.clock,
            sources,
            base_dir: base_dir.to_owned(),
            file: file.to_owned(),
            document,
        };
        match problems.into_errors(file) {
            Some(errors) => Err(errors),
            None => Ok(config),
        }
    }

    /// The file as the user named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1, of the deepest key on `path` that stands in the file; a number is a place
    /// in a list, from 0.
    pub fn line_of(&self, path: &[&str]) -> Option<usize> {
        line_of(&self.document, path)
    }

    /// Gives a connector's complaint its place. `path` leads to the option from the source's own
    /// table; expanded values in `message` are replaced by what stands in the file; an unknown
    /// key gets the nearest known one.
    pub fn source_error(&self, source: &str, path: &[String], message: &str) -> ConfigError {
        self.complaint(source, &["sources", source], path, message)
    }

    /// The same for the replica at `index`, from 0, of a source.
    pub fn replica_error(
        &self,
        source: &str,
        index: usize,
        path: &[String],
        message: &str,
    ) -> ConfigError {
        let index = index.to_string();
        self.complaint(source, &["sources", source, "replicas", &index], path, message)
    }

    fn complaint(
        &self,
        source: &str,
        table: &[&str],
        path: &[String],
        message: &str,
    ) -> ConfigError {
        let mut full = table.to_vec();
        full.extend(path.iter().map(String::as_str));
        let message = self.redact(source, message);
        let message = match Complaint::of(&message) {
            Complaint::UnknownField { field, known } => {
                if full.last() != Some(&field) {
                    full.push(field);
                }
                let hint = hint(field, "keys", &known);
                format!("key '{}' is unknown{hint}", join(&full))
            }
            Complaint::MissingField { field } => {
                format!("key '{}' is missing", join(&[&full[..], &[field]].concat()))
            }
            Complaint::Other(message) => format!("key '{}': {message}", join(&full)),
        };
        ConfigError { file: self.file.clone(), line: self.line_of(&full), message }
    }

    /// The names of keys outside `[sources]` whose values differ, as `server.listen`.
    pub fn changed_settings(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.settings(), other.settings());
        let changed = keys::KEYS.iter().filter(|key| (key.get)(&ours) != (key.get)(&theirs));
        changed.map(|key| format!("{}.{}", key.section, key.name)).collect()
    }

    fn settings(&self) -> Settings {
        Settings {
            server: self.server.clone(),
            query: self.query.clone(),
            freshness: self.freshness.clone(),
            clock: self.clock.clone(),
        }
    }

    fn redact(&self, source: &str, message: &str) -> String {
        let mut secrets = Vec::new();
        if let Some(Entry { value: Value::Table(sources), .. }) = self.document.get("sources")
            && let Some(entry) = sources.get(source)
        {
            entry.value.secrets(&mut secrets);
        }
        redact(message, secrets)
    }
}

/// Replaces every secret by what may stand for it, longest first.
fn redact(message: &str, mut secrets: Vec<(String, String)>) -> String {
    secrets.retain(|(secret, _)| !secret.is_empty());
    secrets.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
    let mut message = message.to_owned();
    for (secret, shown) in secrets {
        let escaped = format!("{secret:?}");
        message = message.replace(&escaped, &format!("{shown:?}"));
        if secret.len() >= 4 {
            message = message.replace(escaped.trim_matches('"'), &shown).replace(&secret, &shown);
        } else {
            // Too short to be looked for anywhere: `5` is in every port.
            for quote in ['\'', '`'] {
                let quoted = format!("{quote}{secret}{quote}");
                message = message.replace(&quoted, &format!("{quote}{shown}{quote}"));
            }
        }
    }
    message
}

/// What serde says of an option, taken apart.
enum Complaint<'a> {
    UnknownField { field: &'a str, known: Vec<&'a str> },
    MissingField { field: &'a str },
    Other(&'a str),
}

impl<'a> Complaint<'a> {
    fn of(message: &'a str) -> Self {
        // Odd pieces are what stands in back quotes.
        let mut quoted = message.split('`').skip(1).step_by(2);
        if message.starts_with("unknown field `") {
            if let Some(field) = quoted.next() {
                return Self::UnknownField { field, known: quoted.collect() };
            }
        } else if message.starts_with("missing field `")
            && let Some(field) = quoted.next()
        {
            return Self::MissingField { field };
        }
        Self::Other(message)
    }
}

fn check_section(section: &str, table: &Table, settings: &mut Settings, problems: &mut Problems) {
    for (name, entry) in table {
        let key = join(&[section, name]);
        let Some(known) = keys::of(section).find(|known| known.name == name) else {
            let names: Vec<_> = keys::of(section).map(|key| key.name).collect();
            let hint = hint(name, "keys", &names);
            problems.add(entry.line, format!("key '{key}' is unknown{hint}"));
            continue;
        };
        if let Err(why) = set(known, &entry.value, settings) {
            problems.add(entry.line, format!("key '{key}': {why}"));
        }
    }
}

fn set(key: &Key, value: &Value, settings: &mut Settings) -> Result<(), String> {
    let takes = key.takes.replace('`', "'").replace("''''", "''");
    let Value::Scalar(scalar) = value else {
        return Err(format!("it takes {takes}, not {}", value.kind()));
    };
    (key.set)(settings, &scalar.text).map_err(|why| {
        // The reason may quote the value, which must not be shown when it came from outside.
        if scalar.is_expanded() { does_not_fit(scalar, &takes) } else { why }
    })
}

fn does_not_fit(scalar: &Scalar, takes: &str) -> String {
    format!("the value of '{}' does not fit: it takes {takes}", scalar.raw)
}

/// What only several keys together can be wrong about.
fn check_together(settings: &Settings, document: &Table, problems: &mut Problems) {
    let server = &settings.server;
    let addresses = [("listen", Some(&server.listen)), ("http", server.http.as_ref())];
    for (key, address) in addresses {
        if address.is_some_and(|address| !is_loopback(address)) && !server.insecure {
            problems.add(
                line_of(document, &["server", key]),
                format!(
                    "key 'server.{key}' is an address other machines can reach, and this version \
                     has no authentication yet: whoever reaches it reads every source. Listen on \
                     127.0.0.1, or set 'insecure = true' under [server] when the network is trusted"
                ),
            );
        }
    }
    let clock = &settings.clock;
    match (clock.source, clock.max_offset) {
        (ClockSource::Declared, None) => {
            let message = "key 'clock.max_offset' is missing: source = 'declared' declares it, for \
                           example '50ms'";
            problems.add(line_of(document, &["clock", "source"]), message);
        }
        (ClockSource::Declared, Some(_)) | (_, None) => {}
        (_, Some(_)) => {
            let message = "key 'clock.max_offset' goes with source = 'declared' only; remove it, or \
                           set the source";
            problems.add(line_of(document, &["clock", "max_offset"]), message);
        }
    }
}
