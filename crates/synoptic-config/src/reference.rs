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
| `replicas` | | | Not supported yet: every read goes to the authoritative copy. |
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
