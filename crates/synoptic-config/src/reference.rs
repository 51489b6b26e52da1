//! The configuration reference, generated from the table of keys.

use std::fmt::Write as _;

use crate::keys::{self, SECTIONS};
use crate::settings::Settings;

const INTRODUCTION: &str = "\
<!-- Generated from crates/synoptic-config/src/keys.rs. To change it, change that table and run
     the crate's tests with SYNOPTIC_UPDATE_DOCS=1. -->

# Configuration

One TOML file, `synoptic.toml` in the current folder unless `-c FILE` names another. A key that is
not listed here is an error that names the file, the line and the nearest key that exists.

`${NAME}` (an environment variable) and `${file:PATH}` (the text of a file, without its last line
break) expand inside any string; `$${` stands for `${`. Expanded values never appear in errors or
logs. Relative paths are relative to the configuration file.

`SIGHUP` makes a running server read the file again. Sources are added, changed and removed without
disturbing running queries. Changes outside `[sources]` take effect at the next start, and the log
says so.
";

const SOURCES: &str = "
## `[sources.NAME]`

`NAME` is the source's catalog in SQL; quote it when it has capitals or other special characters.
`synoptic` and `information_schema` are reserved. The other keys of the table are the connector's
own: see the `README.md` of its folder under `crates/synoptic-connectors/src/`.

| key | takes | default | meaning |
|---|---|---|---|
| `connector` | a connector's name | required | Which backend reads the source. |
| `replicas` | a list of tables | none | Other places where the source's data can be read. |
| `system_time` | `\"TABLE\" = [\"FROM\", \"TO\"]` pairs | none | Tables that keep their earlier states, for `FOR SYSTEM_TIME AS OF`: a row was in force from the moment in the first column until before that in the second, or is still when that is NULL. The columns are timestamps or dates, in UTC when they have no zone, and the moments are the source's own. |

## `[[sources.NAME.replicas]]`

What `[sources.NAME]` itself says is the *authoritative* copy, where the owners write; its name is
`primary`. Each replica follows it: a streaming standby, or a copy of another kind, such as a Parquet
export of a PostgreSQL table.

```toml
[sources.portfolio]
connector = \"postgres\"
url = \"postgresql://app:${PASSWORD}@db1:5432/portfolio\"
max_connections = 40

[[sources.portfolio.replicas]]
name = \"standby1\"
url = \"postgresql://app:${PASSWORD}@db2:5432/portfolio\"

[[sources.portfolio.replicas]]
name = \"export\"
connector = \"files\"
location = \"./export/\"
tables = { \"positions\" = \"positions_daily\", \"audit.log\" = \"log\" }
```

| key | takes | default | meaning |
|---|---|---|---|
| `name` | a name | required | The copy's name in receipts and in `WITH (copy = '…')`; once in a source, and not `primary`. |
| `connector` | a connector's name | the source's | Which backend reads the copy. |
| `tables` | `\"TABLE\" = \"TABLE\"` pairs | none | Tables that are called otherwise there: the source's name, then the copy's. Without a schema the default schema of each is meant; `\"a.b\"` is a table in a schema, and names with dots stand in double quotes inside the text: `'\"a.b\"'`. Other tables are looked for under their own name. |

The other keys are the connector's own, as for a source. When the connector is the source's, options
that are not about the place are the source's unless the replica has its own: for `postgres`
`max_connections`, `max_partitions`, `min_partition_size`, `max_query_rows`, `connect_timeout`,
`acquire_timeout`, `application_name`, `tls_root_cert` and `writable`; for `sqlite` `max_connections`,
`acquire_timeout`, `busy_timeout` and `writable` (`true` lets INSERT, UPDATE and DELETE write to the source; it is
`false` when absent); for `files` none. Where the `files` connector has tables of its own to declare, they
stand in the same `tables`, as tables: `[sources.NAME.replicas.tables.log]`.
";

/// The configuration reference in Markdown, as it stands in `docs/configuration.md`.
pub fn reference() -> String {
    let defaults = Settings::default();
    let mut text = INTRODUCTION.to_owned();
    for section in SECTIONS {
        let about = match section {
            "query" => {
                "\nThe defaults of the session options. A session, a header or a table hint \
                 overrides them.\n"
            }
            "freshness" => {
                "\nHow the copies of a source are followed. A statement says how stale its answer \
                 may be with `max_staleness`; any copy that proves it may answer.\n"
            }
            _ => "",
        };
        let _ = write!(text, "\n## `[{section}]`\n{about}\n");
        text.push_str("| key | takes | default | meaning |\n|---|---|---|---|\n");
        for key in keys::of(section) {
            let default = match (key.name, (key.get)(&defaults)) {
                // A number that would differ from machine to machine.
                ("target_partitions", _) => "the number of cores".to_owned(),
                (_, value) if value.is_empty() => "not set".to_owned(),
                (_, value) => format!("`{value}`"),
            };
            let (name, takes, meaning) = (key.name, key.takes, key.meaning);
            let _ = writeln!(text, "| `{name}` | {takes} | {default} | {meaning} |");
        }
    }
    text.push_str(SOURCES);
    text
}
