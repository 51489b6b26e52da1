use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use synoptic_types::{ByteSize, QueryOptions};

use super::*;
use crate::keys::KEYS;
use crate::settings::Settings;

const CONNECTORS: [&str; 3] = ["files", "postgres", "sqlite"];

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_in(text, Path::new("/etc/synoptic"))
}

fn parse_in(text: &str, base_dir: &Path) -> Result<Config, ConfigErrors> {
    let variable = |name: &str| match name {
        "DB_PASSWORD" => Some("hunter2-äß\"x".to_owned()),
        "PORT" => Some("7".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    Config::read(text, "conf/s.toml", base_dir, &CONNECTORS, &variable)
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let errors = parse(text).expect_err(text);
    let lines: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expected, "for\n{text}");
}

#[test]
fn a_whole_file_as_in_the_contract() {
    let config = parse(
        r#"
[server]
listen = "127.0.0.1:0"
http   = "localhost:9091"
memory_limit = "512MiB"
max_concurrent_queries = 8
drain_timeout = "5s"
spill_dir = "spill"

[query]
max_staleness = "0s"
on_unmet = "error"
dynamic_filters = false
max_rows_read = 1000

[clock]
source = "auto"

[sources.portfolio]
connector = "postgres"
url = "postgresql://app:${DB_PASSWORD}@db1:5432/portfolio"
pool = { max = 4, wait = "2s" }

[sources.history]
connector = "files"
location = "./data/prices/"
[sources.history.tables.prices]
path = "daily/*.parquet"

[sources."Mixed Case"]
connector = "sqlite"
path = "a.db"
"#,
    )
    .expect("valid");
    assert_eq!(config.server.listen, "127.0.0.1:0");
    assert_eq!(config.server.http.as_deref(), Some("localhost:9091"));
    assert_eq!(config.server.memory_limit, ByteSize(512 << 20));
    assert_eq!(config.server.max_concurrent_queries, 8);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(5));
    assert_eq!(config.server.spill_dir, Some(PathBuf::from("/etc/synoptic/spill")));
    assert_eq!(config.server.batch_size, 8192);
    assert!(!config.query.dynamic_filters);
    assert_eq!(config.query.max_rows_read, Some(1000));
    let names: Vec<_> = config.sources.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["Mixed Case", "history", "portfolio"]);
    let portfolio = &config.sources[2];
    assert_eq!(
        serde_json::Value::Object(portfolio.options.clone()),
        json!({
            "url": "postgresql://app:hunter2-äß\"x@db1:5432/portfolio",
            "pool": {"max": 4, "wait": "2s"},
        })
    );
    assert_eq!(config.sources[1].options["tables"], json!({"prices": {"path": "daily/*.parquet"}}));
    assert_eq!(config.line_of(&["sources", "portfolio", "url"]), Some(21));
    assert_eq!(config.line_of(&["sources", "history", "tables", "prices", "nope"]), Some(27));
    assert_eq!(config.line_of(&["nope"]), None);
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

#[test]
fn unknown_keys_name_the_line_and_the_nearest_key() {
    refused(
        "[server]\nlistn = 'x'\n\n[qery]\n[query]\nmax-stalenes = '1s'\nzzz = 1\n",
        &[
            "conf/s.toml:2: key 'server.listn' is unknown; did you mean 'listen'?",
            "conf/s.toml:4: key 'qery' is unknown; did you mean 'query'?",
            "conf/s.toml:6: key 'query.max-stalenes' is unknown; did you mean 'max_staleness'?",
            "conf/s.toml:7: key 'query.zzz' is unknown; the keys are max_staleness, on_unmet, \
             wait_timeout, consistency, max_skew, read_timestamp, token, pushdown, \
             dynamic_filters, max_rows_read, statement_timeout",
        ],
    );
}

#[test]
fn values_that_do_not_fit_name_the_key_and_what_it_takes() {
    refused(
        "server.drain_timeout = 30\nserver.memory_limit = '1KiB'\nserver.batch_size = 0\n\
         server.insecure = 'yes'\nserver.listen = 5\nserver.http = []\nquery.on_unmet = 'panic'\n\
         query.consistency = 'often'\nclock.source = 'kernal'\nsources = 3\n",
        &[
            "conf/s.toml:1: key 'server.drain_timeout': '30' is not a duration: write for example \
             '250ms', '5s', '2m' or '1h'",
            "conf/s.toml:2: key 'server.memory_limit': '1KiB' is too little: at least 16MiB",
            "conf/s.toml:3: key 'server.batch_size': '0' is not a whole number from 1 to 1048576",
            "conf/s.toml:4: key 'server.insecure': 'yes' is neither true nor false",
            "conf/s.toml:5: key 'server.listen': '5' is not HOST:PORT, for example \
             '127.0.0.1:50051'",
            "conf/s.toml:6: key 'server.http': it takes 'HOST:PORT', not a list",
            "conf/s.toml:7: key 'query.on_unmet': 'panic' does not fit: one of 'error', 'wait', \
             'stale'",
            "conf/s.toml:8: key 'query.consistency': 'often' does not fit: one of 'source', \
             'bounded', 'as_of'",
            "conf/s.toml:9: key 'clock.source': 'kernal' is not a clock source; did you mean \
             'kernel'?",
            "conf/s.toml:10: key 'sources' takes a table, not a number",
        ],
    );
}

#[test]
fn max_offset_goes_with_a_declared_clock() {
    refused(
        "[clock]\nsource = 'kernel'\nmax_offset = '50ms'\n",
        &[
            "conf/s.toml:3: key 'clock.max_offset' goes with source = 'declared' only; remove it, or \
           set the source",
        ],
    );
    refused(
        "[clock]\nsource = 'declared'\n",
        &[
            "conf/s.toml:2: key 'clock.max_offset' is missing: source = 'declared' declares it, for \
           example '50ms'",
        ],
    );
}

#[test]
fn the_kernel_is_a_clock_source() {
    let clock = parse("[clock]\nsource = 'kernel'\n").expect("valid").clock;
    assert_eq!((clock.source, clock.max_offset), (ClockSource::Kernel, None));
}

#[test]
fn a_clock_is_declared() {
    let clock =
        parse("[clock]\nsource = 'declared'\nmax_offset = '50ms'\nmax_commit_wait = '250ms'\n")
            .expect("valid")
            .clock;
    assert_eq!(clock.source, ClockSource::Declared);
    assert_eq!(clock.max_offset, Some(Duration::from_millis(50)));
    assert_eq!(clock.max_commit_wait, Duration::from_millis(250));
}

#[test]
fn replicas_are_read_with_their_lines() {
    let config = parse(
        "[sources.p]\nconnector = 'postgres'\nurl = 'a'\n\
         [[sources.p.replicas]]\nname = 'standby1'\nurl = 'b${DB_PASSWORD}'\n\
         [[sources.p.replicas]]\nname = 'export'\nconnector = 'files'\nlocation = 'x/'\n\
         [sources.p.replicas.tables]\npositions = 'daily'\n'audit.log' = 'lake.\"a.b\"\"c\"'\n\
         declared = { path = '*.parquet' }\n",
    )
    .expect("valid");
    let source = &config.sources[0];
    assert_eq!(serde_json::Value::Object(source.options.clone()), json!({"url": "a"}));
    let [standby, export] = source.replicas.as_slice() else { panic!("{source:?}") };
    assert_eq!((standby.name.as_str(), standby.connector.as_str()), ("standby1", "postgres"));
    assert_eq!(standby.options["url"], json!("bhunter2-äß\"x"));
    assert!(standby.tables.is_empty());
    assert_eq!((export.name.as_str(), export.connector.as_str()), ("export", "files"));
    assert_eq!(
        serde_json::Value::Object(export.options.clone()),
        json!({"location": "x/", "tables": {"declared": {"path": "*.parquet"}}})
    );
    let table = |schema: Option<&str>, name: &str| TableText {
        schema: schema.map(str::to_owned),
        name: name.to_owned(),
    };
    let tables: Vec<_> = export.tables.clone().into_iter().collect();
    assert_eq!(
        tables,
        [
            (table(None, "positions"), table(None, "daily")),
            (table(Some("audit"), "log"), table(Some("lake"), "a.b\"c")),
        ]
    );
    assert_eq!(config.line_of(&["sources", "p", "replicas", "0", "url"]), Some(6));
    assert_eq!(config.line_of(&["sources", "p", "replicas", "1", "nope"]), Some(7));
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    let error = config.replica_error("p", 0, &["url".to_owned()], "no hunter2-äß\"x here");
    assert_eq!(error.to_string(), "conf/s.toml:6: key 'sources.p.replicas.0.url': no ${…} here");
}

#[test]
fn what_is_wrong_with_replicas_has_its_line() {
    refused(
        "[sources.p]\nconnector = 'postgres'\n\
         [[sources.p.replicas]]\nnam = 'a'\n\
         [[sources.p.replicas]]\nname = 'Primary'\n\
         [[sources.p.replicas]]\nname = 'b'\nconnector = 'sqlit'\n\
         [[sources.p.replicas]]\nname = 'c'\n\
         [[sources.p.replicas]]\nname = 'c'\n\
         [[sources.p.replicas]]\nname = 'd'\ntables = { a = 1 }\n\
         [[sources.p.replicas]]\nname = 'e'\ntables = { 'a.b.c' = 'x' }\n\
         [[sources.p.replicas]]\nname = '${DB_PASSWORD}'\n\
         [sources.q]\nconnector = 'sqlite'\nreplicas = 'x'\n",
        &[
            "conf/s.toml:3: key 'sources.p.replicas.0.name' is missing; is it 'nam' that you mean?",
            "conf/s.toml:6: key 'sources.p.replicas.1.name': 'Primary' is reserved; choose another \
             name",
            "conf/s.toml:9: key 'sources.p.replicas.2.connector': there is no connector 'sqlit'; \
             did you mean 'sqlite'?",
            "conf/s.toml:12: key 'sources.p.replicas.4.name': 'c' is the name of another replica",
            "conf/s.toml:16: key 'sources.p.replicas.5.tables.a' takes the name of a table, not a \
             number",
            "conf/s.toml:19: key 'sources.p.replicas.6.tables.\"a.b.c\"': 'a.b.c' is not the name \
             of a table: write 'table' or 'schema.table', with names that have dots in double \
             quotes",
            "conf/s.toml:21: key 'sources.p.replicas.7.name': a name stands in the file itself",
            "conf/s.toml:24: key 'sources.q.replicas' takes a list of tables, not text: write \
             [[sources.q.replicas]]",
        ],
    );
}

#[test]
fn freshness_settings() {
    let key = "0123456789abcdef0123456789abcdef";
    let text = format!(
        "[freshness]\nprobe_interval = '1s'\nmax_waiting = 7\nreplay_wait = '0ms'\n\
         retry_pause = '1ms'\nmax_drift_ppm = 100\ntoken_key = '{key}'\n"
    );
    let config = parse(&text).expect("valid");
    assert_eq!(
        config.freshness,
        FreshnessConfig {
            probe_interval: Duration::from_secs(1),
            max_waiting: 7,
            replay_wait: Duration::ZERO,
            retry_pause: Duration::from_millis(1),
            max_drift_ppm: 100,
            token_key: Some(key.to_owned()),
        }
    );
    assert!(!format!("{config:?}").contains(key), "{config:?}");
    refused(
        "[freshness]\nprobe_interval = '1ms'\ntoken_key = 'geheim'\nretry_pause = '0s'\n",
        &[
            "conf/s.toml:2: key 'freshness.probe_interval': '1ms' is too short: at least 10ms",
            "conf/s.toml:3: key 'freshness.token_key': the secret is shorter than 32 bytes; make \
             one with 'openssl rand -hex 32'",
            "conf/s.toml:4: key 'freshness.retry_pause': '0s' is too short: at least 1ms",
        ],
    );
}

#[test]
fn a_public_address_needs_insecure() {
    for address in ["0.0.0.0:50051", "[::]:1", "db1.example.org:50051", "10.0.0.1:1"] {
        let text = format!("[server]\nlisten = '{address}'\n");
        let errors = parse(&text).expect_err(address).to_string();
        assert!(errors.starts_with("conf/s.toml:2: key 'server.listen'"), "{errors}");
        assert!(errors.contains("insecure = true"), "{errors}");
        parse(&format!("{text}insecure = true\n")).expect(address);
    }
    for address in ["127.0.0.1:0", "[::1]:50051", "localhost:1", "127.8.8.8:65535"] {
        parse(&format!("[server]\nlisten = '{address}'\nhttp = '{address}'\n")).expect(address);
    }
    for address in ["127.0.0.1", "127.0.0.1:99999", ":50051", "http://localhost:1", "a b:1", ""] {
        parse(&format!("[server]\nlisten = '{address}'\n")).expect_err(address);
    }
}

#[test]
fn sources_need_a_known_connector_and_a_free_name() {
    refused(
        "[sources.a]\nconnector = 'postgers'\n[sources.b]\nconector = 'files'\n[sources.c]\n\
         [sources.Synoptic]\nconnector = 'files'\n[sources.information_schema]\n\
         [sources.'']\nconnector = 'files'\n[sources]\nd = 1\n",
        &[
            "conf/s.toml:2: key 'sources.a.connector': there is no connector 'postgers'; did you \
             mean 'postgres'?",
            "conf/s.toml:3: key 'sources.b.connector' is missing; is it 'conector' that you mean?",
            "conf/s.toml:5: key 'sources.c.connector' is missing; the connectors are files, \
             postgres, sqlite",
            "conf/s.toml:6: key 'sources.Synoptic': 'Synoptic' is reserved; choose another name",
            "conf/s.toml:8: key 'sources.information_schema': 'information_schema' is reserved; \
             choose another name",
            "conf/s.toml:9: key 'sources.\"\"': a source needs a name",
            "conf/s.toml:12: key 'sources.d' takes a table, not a number",
        ],
    );
}

#[test]
fn broken_toml_has_its_line() {
    let errors = parse("[server]\nlisten = \n").expect_err("no value").to_string();
    assert!(errors.starts_with("conf/s.toml:2: this is not TOML: "), "{errors}");
    let errors =
        parse("[server]\nlisten = 'a:1'\nlisten = 'b:2'\n").expect_err("twice").to_string();
    assert!(errors.starts_with("conf/s.toml:3: this is not TOML: duplicate key"), "{errors}");
}

#[test]
fn expansion() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("secret"), "from a file\r\n").expect("written");
    let text = "[sources.s]\nconnector = 'sqlite'\n\
                a = 'x${DB_PASSWORD}y${PORT}'\nb = '${file:secret}'\nc = '$${PORT} $5 $$ ${EMPTY}'\n\
                d = ['${PORT}', { e = '${PORT}' }]\n";
    let config = parse_in(text, folder.path()).expect("valid");
    assert_eq!(
        serde_json::Value::Object(config.sources[0].options.clone()),
        json!({
            "a": "xhunter2-äß\"xy7",
            "b": "from a file",
            "c": "${PORT} $5 $$ ",
            "d": ["7", {"e": "7"}],
        })
    );
    assert_eq!(
        parse("server.batch_size = '${PORT}'").expect("a number in a variable").server.batch_size,
        7
    );
    refused(
        "[sources.s]\nconnector = 'sqlite'\na = 'pre${NO_SUCH}'\nb = '${file:no/such}'\n\
         c = '${PORT'\nd = '${}'\ne = ['${1}']\n",
        &[
            "conf/s.toml:3: key 'sources.s.a': the environment variable 'NO_SUCH' is not set",
            "conf/s.toml:4: key 'sources.s.b': '${file:no/such}' cannot be read: No such file or \
             directory (os error 2)",
            "conf/s.toml:5: key 'sources.s.c': '${PORT' has no closing brace; write '$${' for a \
             literal '${'",
            "conf/s.toml:6: key 'sources.s.d': '${}' is neither '${NAME}' of an environment \
             variable nor '${file:PATH}'; write '$${' for a literal '${'",
            "conf/s.toml:7: key 'sources.s.e': '${1}' is neither '${NAME}' of an environment \
             variable nor '${file:PATH}'; write '$${' for a literal '${'",
        ],
    );
}

#[test]
fn no_error_shows_an_expanded_value() {
    for key in KEYS {
        let text = format!("[{}]\n{} = '${{DB_PASSWORD}}'\n", key.section, key.name);
        match parse(&text) {
            // These take any text.
            Ok(_) => assert!(["segment", "spill_dir", "token"].contains(&key.name), "{}", key.name),
            Err(errors) => {
                let errors = errors.to_string();
                assert!(!errors.contains("hunter2"), "{errors}");
                assert!(errors.contains(&format!("'{}.{}'", key.section, key.name)), "{errors}");
            }
        }
    }
    let text = "[sources.s]\nconnector = '${DB_PASSWORD}'\n";
    assert!(!parse(text).expect_err("unknown connector").to_string().contains("hunter2"));

    let text = "[sources.s]\nconnector = 'sqlite'\nurl = 'a${DB_PASSWORD}'\nport = '${PORT}'\n";
    let config = parse(text).expect("valid");
    for (message, shown) in [
        (
            "invalid type: string \"ahunter2-äß\\\"x\", expected u64",
            "invalid type: string \"a${DB_PASSWORD}\", expected u64",
        ),
        ("cannot open ahunter2-äß\"x", "cannot open a${DB_PASSWORD}"),
        ("bad password hunter2-äß\"x", "bad password ${…}"),
        ("no '7' in 1974", "no '${PORT}' in 1974"),
    ] {
        let error = config.source_error("s", &["url".to_owned()], message);
        assert_eq!(error.to_string(), format!("conf/s.toml:3: key 'sources.s.url': {shown}"));
    }
}

#[test]
fn complaints_of_connectors_get_their_place() {
    let text = "[sources.s]\nconnector = 'sqlite'\npaht = 'a.db'\n[sources.s.tables.t]\nsql = 1\n";
    let config = parse(text).expect("valid");
    let complain = |path: &[&str], message: &str| {
        let path: Vec<_> = path.iter().map(|&s| s.to_owned()).collect();
        config.source_error("s", &path, message).to_string()
    };
    assert_eq!(
        complain(&["paht"], "unknown field `paht`, expected one of `path`, `tables`"),
        "conf/s.toml:3: key 'sources.s.paht' is unknown; did you mean 'path'?"
    );
    assert_eq!(
        complain(&[], "unknown field `paht`, expected `location`"),
        "conf/s.toml:3: key 'sources.s.paht' is unknown; the keys are location"
    );
    assert_eq!(
        complain(&[], "missing field `path`"),
        "conf/s.toml:1: key 'sources.s.path' is missing"
    );
    assert_eq!(
        complain(&["tables", "t", "sql"], "invalid type: integer `1`, expected a string"),
        "conf/s.toml:5: key 'sources.s.tables.t.sql': invalid type: integer `1`, expected a string"
    );
}

#[test]
fn a_reload_knows_what_changed() {
    let old = parse("[server]\nlisten = '127.0.0.1:1'\n[query]\npushdown = 'none'").expect("valid");
    let new = parse("[server]\nbatch_size = 1\nlisten = '127.0.0.1:1'").expect("valid");
    assert_eq!(old.changed_settings(&new), ["server.batch_size", "query.pushdown"]);
    assert!(old.changed_settings(&old.clone()).is_empty());
}

#[test]
fn every_query_option_is_a_key_and_every_default_reads_back() {
    let names: Vec<_> = keys::of("query").map(|key| key.name).collect();
    assert_eq!(names, QueryOptions::NAMES);
    let defaults = Settings::default();
    for key in KEYS {
        let mut settings = Settings::default();
        let value = (key.get)(&defaults);
        if key.name == "max_offset" {
            continue;
        }
        (key.set)(&mut settings, &value).unwrap_or_else(|e| panic!("{}: {e}", key.name));
        assert_eq!(settings, defaults, "{}", key.name);
    }
}

#[test]
fn the_reference_is_what_stands_in_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("SYNOPTIC_UPDATE_DOCS").is_some() {
        std::fs::write(&path, reference()).expect("written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/configuration.md");
    assert_eq!(written, reference(), "run this test once with SYNOPTIC_UPDATE_DOCS=1");
}

#[test]
fn a_missing_file_is_named() {
    let errors = Config::load(Path::new("no/such.toml"), &CONNECTORS).expect_err("not there");
    assert!(errors.to_string().starts_with("no/such.toml: cannot read it: "), "{errors}");
}

fn toml_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "[server]",
        "[query]",
        "[clock]",
        "[sources.a]",
        "[[sources.a.replicas]]",
        "\n",
        "=",
        "'",
        "\"",
        "\"\"\"",
        "listen",
        "connector",
        "'files'",
        "${",
        "}",
        "$${",
        "${PORT}",
        ".",
        ",",
        "{",
        "[",
        "]",
        "1",
        "-0",
        "1e999",
        "0xff",
        "inf",
        "1979-05-27",
        "true",
        "\\u0000",
        "ä",
        " ",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_lines_that_exist(
        text in prop_oneof![any::<String>(), toml_like()]
    ) {
        let lines = text.split('\n').count();
        match parse(&text) {
            Ok(config) => prop_assert!(config.sources.len() <= lines),
            Err(errors) => {
                prop_assert!(!errors.0.is_empty());
                for error in errors.0 {
                    prop_assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)));
                }
            }
        }
    }

    #[test]
    fn texts_without_expansions_come_through_unchanged(
        name in "[a-zA-Z0-9 äöü.\"'\\\\-]{1,20}",
        value in any::<String>(),
    ) {
        prop_assume!(!["synoptic", "information_schema"].contains(&name.to_lowercase().as_str()));
        let escaped = value.replace("${", "$${");
        let document = json!({"sources": {&name: {"connector": "files", "v": escaped, "n": [1, 2.5]}}});
        let text = toml::to_string(&document).expect("TOML");
        let config = parse(&text).expect("valid");
        prop_assert_eq!(config.sources[0].name.as_str(), name.as_str());
        prop_assert_eq!(
            serde_json::Value::Object(config.sources[0].options.clone()),
            json!({"v": value, "n": [1, 2.5]})
        );
    }

    #[test]
    fn settings_read_back_what_was_written(
        partitions in 1_usize..=1024, history in 0_usize..=1_000_000, mib in 16_u64..100_000,
        millis in 0_u64..10_000_000,
    ) {
        let text = format!(
            "[server]\ntarget_partitions = {partitions}\nquery_history = {history}\n\
             memory_limit = '{mib}MiB'\ndrain_timeout = '{millis}ms'\n"
        );
        let config = parse(&text).expect("valid");
        prop_assert_eq!(config.server.target_partitions, partitions);
        prop_assert_eq!(config.server.query_history, history);
        prop_assert_eq!(config.server.memory_limit, ByteSize(mib << 20));
        prop_assert_eq!(config.server.drain_timeout, Duration::from_millis(millis));
    }
}
