//! The crates use each other as `crates/README.md` says, no more and no less.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::MetadataCommand;

type Edges = BTreeMap<String, BTreeSet<String>>;

#[test]
fn crates_use_each_other_as_the_code_map_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root");
    let text = fs::read_to_string(root.join("crates/README.md")).expect("crates/README.md");
    let declared = declared_edges(&text);
    let actual = actual_edges(root);
    for (package, uses) in &actual {
        let allowed = declared.get(package).unwrap_or_else(|| {
            panic!("crates/README.md, section 'Allowed edges', has no line for {package}")
        });
        assert_eq!(
            allowed, uses,
            "{package} is allowed (left) other crates by crates/README.md than its Cargo.toml \
             names (right)"
        );
    }
    assert_eq!(
        declared.keys().collect::<Vec<_>>(),
        actual.keys().collect::<Vec<_>>(),
        "crates/README.md names other packages than the workspace has"
    );
}

#[test]
fn there_is_no_way_from_the_engine_to_a_connector_or_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root");
    let edges = actual_edges(root);
    let reachable = |from: &str| {
        let mut found = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(package) = open.pop() {
            for used in &edges[&package] {
                if found.insert(used.clone()) {
                    open.push(used.clone());
                }
            }
        }
        found
    };
    assert!(!reachable("synoptic-engine").contains("synoptic-connectors"));
    assert!(!reachable("synoptic-flight").contains("synoptic-connectors"));
    assert!(!reachable("synoptic-connectors").contains("synoptic-engine"));
    assert!(reachable("synoptic-types").is_empty());
}

/// The rows `| package | uses |` of the section "Allowed edges"; names stand in back ticks.
fn declared_edges(text: &str) -> Edges {
    let section = text.split("\n## ").find(|section| section.starts_with("Allowed edges"));
    let rows = section.expect("a section 'Allowed edges'").lines();
    let rows = rows.filter_map(|line| line.strip_prefix("| `")?.split_once('|'));
    rows.map(|(package, uses)| {
        let package = package.trim().trim_end_matches('`').to_owned();
        let uses = uses.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (package, uses)
    })
    .collect()
}

/// What the manifests say, with build and development dependencies.
fn actual_edges(root: &Path) -> Edges {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let packages = metadata.workspace_packages();
    let members: BTreeSet<String> = packages.iter().map(|p| p.name.to_string()).collect();
    packages
        .iter()
        .map(|package| {
            let uses = package.dependencies.iter().map(|d| d.name.to_string());
            (package.name.to_string(), uses.filter(|name| members.contains(name)).collect())
        })
        .collect()
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root");
    let text = fs::read_to_string(root.join("crates/README.md")).expect("crates/README.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Invariants"));
    let rows = section.expect("a section 'Invariants'").lines();
    let mut seen = 0;
    for row in rows.filter(|line| line.starts_with("| ")).skip(1) {
        let names: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        let [.., file, test] = names[..] else { panic!("no file and test in: {row}") };
        let code = fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let word = if file.ends_with(".py") { "def" } else { "fn" };
        assert!(code.contains(&format!("{word} {test}(")), "{file} has no test {test}");
        seen += 1;
    }
    assert!(seen >= 10, "the table was not found");
}
