//! Rules of the house that no compiler checks: who may import whom, and what may be written where.

mod modules;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The crates from the highest layer to the lowest; each may import only those behind it.
const LAYERS: [&str; 4] = ["engine", "actors", "broker", "schema"];
/// What a crate outside the stack may import.
const STRANGER: (&str, &str) = ("loadtest", "schema");
/// Crates that look from outside and may spell what the engine's crates may not.
const OUTSIDERS: [&str; 2] = ["loadtest", "tests"];
/// Words that begin a statement, with the word that follows in SQL.
const SQL: [&str; 7] =
    ["SELECT ", "INSERT INTO ", "DELETE FROM ", "CREATE TABLE ", "ALTER TABLE ", "TRUNCATE ", "UPDATE "];

/// A source file: the path below the root, and its text without the tests at its end.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the workspace").to_owned()
}

/// Every file of the project whose name ends so, but nothing that was built.
fn files(ending: &str) -> Vec<Source> {
    let root = root();
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are UTF-8").to_owned();
            if path.is_dir()
                && name != "target"
                && (!name.starts_with('.') || name == ".config" || name == ".ci")
            {
                folders.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                let text = std::fs::read(&path).expect("a file can be read");
                let Ok(text) = String::from_utf8(text) else { continue };
                let path = path.strip_prefix(&root).expect("it lies below").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    found
}

/// The Rust files, without modules that are only tests.
fn rust() -> Vec<Source> {
    let mut sources = files(".rs");
    assert!(!sources.is_empty(), "the sources are not where this test looks for them");
    let is_test = |source: &Source| source.path.contains("/tests/") || source.path.ends_with("tests.rs");
    sources.retain(|source| !is_test(source));
    for source in &mut sources {
        if let Some(at) = source.text.find("\n#[cfg(test)]\nmod tests {") {
            source.text.truncate(at);
        }
    }
    sources
}

/// Lines of code, with their numbers: comments do not count.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Fails with every line of `sources` outside `places` that breaks a rule.
fn forbid(rule: &str, sources: &[Source], places: &[&str], is_broken: impl Fn(&str) -> bool) {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.is_in(places)) {
        let lines = code(&source.text).filter(|(_, line)| is_broken(line));
        found.extend(lines.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())));
    }
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

fn dependencies(manifest: &str) -> Vec<String> {
    let table: toml::Table = manifest.parse().expect("a manifest is TOML");
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
    let names = tables.iter().filter_map(|name| table.get(*name)?.as_table());
    names.flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn crates_import_only_downward() {
    for source in files("Cargo.toml") {
        let Some((own, "Cargo.toml")) = source.path.split_once('/') else { continue };
        let allowed: &[&str] = match LAYERS.iter().position(|layer| *layer == own) {
            Some(at) => &LAYERS[at + 1..],
            None if own == STRANGER.0 => &[STRANGER.1],
            None => &["engine", "actors", "broker", "schema", "loadtest"],
        };
        let ours = |name: &String| LAYERS.contains(&name.as_str()) || OUTSIDERS.contains(&name.as_str());
        for name in dependencies(&source.text).into_iter().filter(ours) {
            assert!(allowed.contains(&name.as_str()), "{} imports {name}", source.path);
        }
    }
}

#[test]
fn sql_is_written_only_in_the_store() {
    let places = ["schema/src/store", "loadtest", "tests"];
    let is_sql = |line: &str| SQL.iter().any(|words| line.contains(words));
    forbid("SQL outside schema/src/store", &rust(), &places, is_sql);
}

#[test]
fn topics_are_spelled_only_in_the_schema() {
    let is_topic = |line: &str| line.contains("iot/");
    forbid("a topic outside schema", &rust(), &["schema", "loadtest", "tests"], is_topic);
}

#[test]
fn metrics_are_declared_only_in_their_catalog() {
    let macros = ["counter!(", "gauge!(", "histogram!("];
    let is_metric = |line: &str| macros.iter().any(|name| line.contains(name));
    forbid("a metric outside the catalog", &rust(), &["schema/src/metrics.rs", "tests"], is_metric);
}

#[test]
fn the_environment_is_read_only_by_the_configuration() {
    let reads = ["env::var", "env::vars", "std::env::args"];
    let is_read = |line: &str| reads.iter().any(|name| line.contains(name));
    // The first process of a container starts itself again with the arguments it was given.
    let places = ["engine/src/config", "engine/src/init.rs", "tests"];
    forbid("the environment is read", &rust(), &places, is_read);
}

#[test]
fn every_file_says_what_it_is() {
    for source in files(".rs") {
        assert!(source.text.starts_with("//! "), "{} does not begin with //!", source.path);
        assert!(!source.path.ends_with("/mod.rs"), "{}: name the file after its module", source.path);
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file is no find of its own.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    for ending in [".rs", ".toml", ".md", ".sql", ".sh", ".py", ".yaml", ".yml", "Makefile"] {
        for source in files(ending) {
            let is_word = |line: &str| {
                line.split(|c: char| !c.is_alphanumeric()).any(|word| words.iter().any(|later| later == word))
            };
            let line = source.text.lines().position(is_word);
            assert!(line.is_none(), "{}:{}", source.path, line.unwrap_or_default() + 1);
        }
    }
}

#[test]
fn the_table_of_conformance_and_its_tests_agree() {
    let table = files("mqtt-conformance.md").pop().expect("the table lies in docs").text;
    let sources = files(".rs");
    let named: HashSet<&str> = (table.lines().filter(|line| line.starts_with("| ")))
        .filter_map(|line| line.trim_end_matches(" |").rsplit_once("| `")?.1.strip_suffix('`'))
        .collect();
    let is_statement = |name: &&str| name.starts_with("v4_mqtt_") || name.starts_with("v5_mqtt_");
    let tests: HashSet<&str> = (sources.iter().flat_map(|source| source.text.lines()))
        .filter_map(|line| {
            line.trim_start_matches("async ").strip_prefix("fn ")?.split_once('(').map(|(name, _)| name)
        })
        .collect();
    let missing: Vec<_> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "tests of the table that do not exist: {missing:?}");
    let unlisted: Vec<_> =
        tests.iter().filter(|name| is_statement(name) && !named.contains(**name)).collect();
    assert!(unlisted.is_empty(), "tests of statements that the table does not name: {unlisted:?}");
    assert!(named.len() > 300, "the table is not read: {}", named.len());
}
