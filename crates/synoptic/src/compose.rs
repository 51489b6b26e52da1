//! The composition root: the one place where configuration, connectors and engine meet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use synoptic_catalog::{CopySet, Host, Replica, SystemTime, WatchSettings};
use synoptic_config::{
    ClockConfig, Config, ConfigError, ConfigErrors, FreshnessConfig, ReplicaConfig, ServerConfig,
    SourceConfig, TableText,
};
use synoptic_engine::{Engine, EngineConfig};
use synoptic_flight::FlightOptions;
use synoptic_freshness::{Policy, TokenKey};
use synoptic_source::Source;
use synoptic_types::{QueryOptions, SystemClock, TableName};

use crate::cli_error::{CliError, Result};

/// An engine over the sources of `config`. Does no I/O on the sources.
///
/// # Errors
/// When an option of a source is wrong, with file and line, or the spill folder cannot be used.
pub fn compose(config: &Config) -> Result<Arc<Engine>> {
    Ok(Composition::new(config)?.engine)
}

/// An engine and the declared sources it was made of, so that they can be compared and replaced.
#[derive(Debug)]
pub struct Composition {
    engine: Arc<Engine>,
    sources: Mutex<Vec<OpenSource>>,
}

/// A source and its replicas with what they were made from.
#[derive(Debug, Clone)]
struct OpenSource {
    declared: SourceConfig,
    base_dir: PathBuf,
    copies: CopySet,
}

/// What a reload did to the sources, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// New names.
    pub added: Vec<String>,
    /// Names whose declaration changed.
    pub changed: Vec<String>,
    /// Names that are gone.
    pub removed: Vec<String>,
}

impl Composition {
    /// Opens every source and makes the engine.
    ///
    /// # Errors
    /// When an option of a source is wrong, or the spill folder cannot be used.
    pub fn new(config: &Config) -> Result<Self> {
        let sources = open_all(config, &[])?;
        let host = Host::of_copies(for_host(&sources), watch_settings(&config.freshness));
        let engine_config =
            engine_config(&config.server, &config.freshness, &config.clock, config.query.clone());
        let engine = Engine::new(engine_config, host, Arc::new(SystemClock))?;
        Ok(Self { engine, sources: Mutex::new(sources) })
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Every source with its copies, by name.
    pub fn copies(&self) -> Vec<CopySet> {
        self.sources.lock().iter().map(|open| open.copies.clone()).collect()
    }

    /// Puts the sources of `config` in the place of the present ones. Sources whose declaration
    /// is the same stay as they are, with their connections and caches.
    ///
    /// # Errors
    /// When an option of a source is wrong; then nothing has changed.
    pub fn replace_sources(&self, config: &Config) -> Result<Replaced, ConfigErrors> {
        let mut current = self.sources.lock();
        let sources = open_all(config, &current)?;
        let replaced = compare(&current, &sources);
        self.engine.host().replace_copies(for_host(&sources));
        *current = sources;
        Ok(replaced)
    }
}

fn open_all(config: &Config, known: &[OpenSource]) -> Result<Vec<OpenSource>, ConfigErrors> {
    let mut sources = Vec::with_capacity(config.sources.len());
    let mut errors = Vec::new();
    for declared in &config.sources {
        let same = known
            .iter()
            .find(|open| open.declared == *declared && open.base_dir == config.base_dir);
        if let Some(same) = same {
            sources.push(same.clone());
            continue;
        }
        if let Some(copies) = open_copies(config, declared, &mut errors) {
            let base_dir = config.base_dir.clone();
            sources.push(OpenSource { declared: declared.clone(), base_dir, copies });
        }
    }
    if errors.is_empty() {
        return Ok(sources);
    }
    errors.sort_by_key(|error| error.line);
    Err(ConfigErrors(errors))
}

/// What the host is made of.
fn for_host(sources: &[OpenSource]) -> Vec<CopySet> {
    sources.iter().map(|open| open.copies.clone()).collect()
}

/// Opens a source and its replicas; `None` when anything is wrong with them.
fn open_copies(
    config: &Config,
    declared: &SourceConfig,
    errors: &mut Vec<ConfigError>,
) -> Option<CopySet> {
    let name = declared.name.as_str();
    let open = |connector: &str, options| {
        synoptic_connectors::open(connector, declared.name.clone(), options, &config.base_dir)
    };
    let authoritative = open(&declared.connector, declared.options.clone()).map_err(|error| {
        errors.push(config.source_error(name, &error.path, &error.message));
    });
    let mut replicas = Vec::with_capacity(declared.replicas.len());
    for (index, replica) in declared.replicas.iter().enumerate() {
        match open(&replica.connector, replica_options(declared, replica)) {
            Err(error) => {
                errors.push(config.replica_error(name, index, &error.path, &error.message));
            }
            Ok(source) => {
                let Ok(authoritative) = &authoritative else { continue };
                match mapped(replica, authoritative.as_ref(), source.as_ref()) {
                    Ok(tables) => {
                        replicas.push(Replica { name: replica.name.clone(), source, tables });
                    }
                    Err(message) => {
                        let path = ["tables".to_owned()];
                        errors.push(config.replica_error(name, index, &path, &message));
                    }
                }
            }
        }
    }
    let whole = replicas.len() == declared.replicas.len();
    let authoritative = authoritative.ok().filter(|_| whole)?;
    let schema = authoritative.default_schema();
    let system_time = declared.system_time.iter().map(|(table, [from, to])| {
        let table = TableName::new(table.schema.as_deref().unwrap_or(schema), table.name.as_str());
        (table, SystemTime { from: from.clone(), to: to.clone() })
    });
    let system_time = system_time.collect();
    Some(CopySet { authoritative, replicas, system_time })
}

fn replica_options(
    source: &SourceConfig,
    replica: &ReplicaConfig,
) -> serde_json::Map<String, serde_json::Value> {
    let options = replica.options.clone();
    if replica.connector != source.connector {
        return options;
    }
    synoptic_connectors::with_inherited(&replica.connector, options, &source.options)
}

/// The tables that are called otherwise in a replica, with the schemas that are left out.
///
/// # Errors
/// When one table stands there twice.
fn mapped(
    replica: &ReplicaConfig,
    authoritative: &dyn Source,
    source: &dyn Source,
) -> Result<BTreeMap<TableName, TableName>, String> {
    let whole = |text: &TableText, schema: &str| {
        TableName::new(text.schema.as_deref().unwrap_or(schema), text.name.as_str())
    };
    let mut tables = BTreeMap::new();
    for (ours, theirs) in &replica.tables {
        let ours = whole(ours, authoritative.default_schema());
        let theirs = whole(theirs, source.default_schema());
        if tables.insert(ours.clone(), theirs).is_some() {
            return Err(format!("the table {ours} stands there twice"));
        }
    }
    Ok(tables)
}

fn compare(old: &[OpenSource], new: &[OpenSource]) -> Replaced {
    let mut replaced = Replaced::default();
    for open in new {
        let name = open.declared.name.as_str().to_owned();
        match old.iter().find(|old| old.declared.name == open.declared.name) {
            None => replaced.added.push(name),
            Some(old) if !Arc::ptr_eq(&old.copies.authoritative, &open.copies.authoritative) => {
                replaced.changed.push(name);
            }
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|old| new.iter().all(|n| n.declared.name != old.declared.name));
    replaced.removed = gone.map(|old| old.declared.name.as_str().to_owned()).collect();
    replaced
}

fn watch_settings(freshness: &FreshnessConfig) -> WatchSettings {
    WatchSettings {
        probe_interval: freshness.probe_interval,
        max_waiting: freshness.max_waiting,
        ..WatchSettings::default()
    }
}

fn engine_config(
    server: &ServerConfig,
    freshness: &FreshnessConfig,
    clock: &ClockConfig,
    defaults: QueryOptions,
) -> EngineConfig {
    EngineConfig {
        memory_limit: server.memory_limit,
        spill_limit: server.spill_limit,
        spill_dir: server.spill_dir.clone(),
        target_partitions: server.target_partitions,
        batch_size: server.batch_size,
        read_ahead_rows: server.read_ahead_rows,
        max_concurrent_queries: server.max_concurrent_queries,
        query_history: server.query_history,
        write_outcomes: server.write_outcomes,
        // The configuration takes none that is too short.
        token_key: freshness.token_key.as_ref().and_then(|key| TokenKey::new(key.as_bytes())),
        freshness: Policy {
            max_drift_ppm: freshness.max_drift_ppm,
            replay_wait: freshness.replay_wait,
            retry_pause: freshness.retry_pause,
        },
        time: crate::clock::wall_clock(clock),
        plan_cache: server.plan_cache,
        defaults,
        cut: synoptic_engine::CutPolicy::default(),
    }
}

/// The limits of the Flight server as the configuration has them.
pub fn flight_options(server: &ServerConfig) -> FlightOptions {
    // The configuration bounds every size below 2 GiB.
    let bytes = |size: synoptic_types::ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
    FlightOptions {
        message_bytes: bytes(server.message_size),
        max_row_bytes: bytes(server.max_row_size),
        max_request_bytes: bytes(server.max_request_size),
        ticket_ttl: server.ticket_ttl,
        planned_ttl: server.plan_ttl,
        max_planned: server.max_waiting_plans as u64,
        max_sessions: server.max_sessions as u64,
        session_idle_ttl: server.session_idle_timeout,
        max_prepared: server.max_prepared_statements as u64,
        metadata_timeout: server.metadata_timeout,
        drain_timeout: server.drain_timeout,
        max_streams_per_connection: u32::try_from(server.max_streams_per_connection)
            .unwrap_or(u32::MAX),
        ..FlightOptions::default()
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Failed(errors.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(folder: &Path, sources: &[(&str, &str)]) -> Config {
        let sources = sources.iter().map(|(name, file)| {
            format!("[sources.{name}]\nconnector = 'sqlite'\npath = '{file}'\n")
        });
        let text = sources.collect::<String>();
        Config::parse(&text, folder, &synoptic_connectors::names()).expect("valid")
    }

    #[test]
    fn the_defaults_of_flight_are_those_of_the_configuration() {
        let ours = flight_options(&ServerConfig::default());
        assert_eq!(format!("{ours:?}"), format!("{:?}", FlightOptions::default()));
    }

    #[tokio::test]
    async fn a_reload_keeps_what_did_not_change() {
        let folder = tempfile::tempdir().expect("a folder");
        for file in ["a.db", "b.db", "c.db"] {
            rusqlite::Connection::open(folder.path().join(file))
                .and_then(|db| db.execute_batch("CREATE TABLE t (x INTEGER)"))
                .expect("a database");
        }
        let before = config(folder.path(), &[("a", "a.db"), ("b", "b.db"), ("gone", "c.db")]);
        let composition = Composition::new(&before).expect("composed");
        let kept = Arc::clone(&composition.sources.lock()[0].copies.authoritative);
        let after = config(folder.path(), &[("a", "a.db"), ("b", "c.db"), ("new", "c.db")]);
        let replaced = composition.replace_sources(&after).expect("replaced");
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            replaced,
            Replaced { added: names(&["new"]), changed: names(&["b"]), removed: names(&["gone"]) }
        );
        assert!(Arc::ptr_eq(&kept, &composition.sources.lock()[0].copies.authoritative));
        assert_eq!(composition.engine().catalogs(), ["a", "b", "new", "synoptic"]);
    }

    #[tokio::test]
    async fn replicas_are_opened_and_compared() {
        let parse = |replicas: &str| {
            let text = format!(
                "[sources.s]\nconnector = 'sqlite'\npath = 'a.db'\nmax_connections = 3\n{replicas}"
            );
            Config::parse(&text, Path::new("."), &synoptic_connectors::names()).expect("valid")
        };
        let one = "[[sources.s.replicas]]\nname = 'near'\npath = 'b.db'\n";
        let export = "[[sources.s.replicas]]\nname = 'export'\nconnector = 'files'\n\
                      location = 'export/'\nformat = 'parquet'\n\
                      tables = { 'accounts' = 'a', 'aux.x' = 'lake.\"b.c\"' }\n";
        let composition = Composition::new(&parse(&format!("{one}{export}"))).expect("composed");
        let copies = &composition.copies()[0];
        let names: Vec<_> = copies.replicas.iter().map(|copy| copy.name.as_str()).collect();
        assert_eq!(names, ["near", "export"]);
        assert!(copies.replicas.iter().all(|copy| copy.source.name().as_str() == "s"));
        let schema = copies.replicas[1].source.default_schema();
        let tables: Vec<_> = copies.replicas[1].tables.iter().collect();
        assert_eq!(
            tables,
            [
                (&TableName::new("aux", "x"), &TableName::new("lake", "b.c")),
                (&TableName::new("main", "accounts"), &TableName::new(schema, "a")),
            ]
        );
        let same = composition.replace_sources(&parse(&format!("{one}{export}"))).expect("same");
        assert_eq!(same, Replaced::default());
        let changed = composition.replace_sources(&parse(one)).expect("one is gone");
        assert_eq!(changed.changed, ["s"]);
        assert_eq!(composition.copies()[0].replicas.len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_replica_has_its_line() {
        let source = "[sources.s]\nconnector = 'sqlite'\npath = 'a.db'\n";
        for (replica, expected) in [
            (
                "name = 'a'\npath = 'b.db'\n[[sources.s.replicas]]\nname = 'r'\npaht = 'c'",
                "synoptic.toml:9: key 'sources.s.replicas.1.paht' is unknown; did you mean 'path'?",
            ),
            ("name = 'r'", "synoptic.toml:4: key 'sources.s.replicas.0.path' is missing"),
            (
                "name = 'r'\npath = 'b.db'\ntables = { a = 'x', 'main.a' = 'y' }",
                "synoptic.toml:7: key 'sources.s.replicas.0.tables': the table main.a stands there \
                 twice",
            ),
        ] {
            let text = format!("{source}[[sources.s.replicas]]\n{replica}\n");
            let config =
                Config::parse(&text, Path::new("."), &synoptic_connectors::names()).expect("valid");
            let error = compose(&config).expect_err(replica).to_string();
            assert_eq!(error, expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_option_has_its_line() {
        let text = "[sources.s]\nconnector = 'sqlite'\npaht = 'a.db'\n";
        let config =
            Config::parse(text, Path::new("."), &synoptic_connectors::names()).expect("valid");
        let error = compose(&config).expect_err("an unknown option").to_string();
        assert!(error.starts_with("synoptic.toml:3: key 'sources.s.paht' is unknown"), "{error}");
        assert!(error.contains("'path'"), "{error}");
    }
}
