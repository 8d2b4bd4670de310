//! Who imports whom inside a crate: no module is imported by what it imports, so that each can be read, and tested, with
//! nothing but what lies below it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, code, rust};

/// The crates that are looked at.
const CRATES: [&str; 3] = ["engine", "actors", "broker"];
/// A module that puts together what lies below it. A child may otherwise extend the module it belongs to.
const ROOF: &str = "broker::door";

/// By module, what it imports of its own crate.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The imports of a crate's modules.
fn imports(own: &str) -> Imports {
    let inside = format!("{own}/src/");
    let sources: Vec<Source> = rust().into_iter().filter(|source| source.path.starts_with(&inside)).collect();
    assert!(!sources.is_empty(), "the modules of {own} are not where this test looks for them");
    let modules: BTreeSet<String> = sources.iter().map(|source| module(own, &source.path)).collect();
    let of_source = |source: &Source| {
        let name = module(own, &source.path);
        let found = paths_of(own, &name, &source.text);
        let imported = found.iter().filter_map(|path| nearest(path, &modules)).filter(|found| *found != name);
        (name.clone(), imported.collect())
    };
    sources.iter().map(of_source).collect()
}

/// The module of a file.
fn module(own: &str, path: &str) -> String {
    let below = path.trim_start_matches(own).trim_start_matches("/src/").trim_end_matches(".rs");
    match below {
        "lib" => own.to_owned(),
        _ => format!("{own}::{}", below.replace('/', "::")),
    }
}

/// The module that holds what a path names.
fn nearest(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = path;
    while !modules.contains(path) {
        path = path.rsplit_once("::")?.0;
    }
    Some(path.to_owned())
}

/// Every path in a file that begins in its crate, spelled from the root.
fn paths_of(own: &str, module: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = code(text).map(|(_, line)| line).collect();
    let text = lines.join("\n");
    let mut found = Vec::new();
    let mut look_for = |start: &str, base: &str| {
        for (at, _) in text.match_indices(start) {
            let is_inside = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if !text[..at].ends_with(is_inside) {
                spell(&mut &text[at + start.len()..], base, &mut found);
            }
        }
    };
    look_for("crate::", own);
    if let Some((parent, _)) = module.rsplit_once("::") {
        look_for("super::", parent);
    }
    for line in &lines {
        let line = line.trim_start_matches("pub").trim_start_matches("(crate)").trim_start_matches("(super)");
        if let Some(child) = line.trim_start().strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            look_for(&format!("{child}::"), &format!("{module}::{child}"));
        }
    }
    found
}

/// Spells out the paths behind a prefix, and takes them off the text.
fn spell(text: &mut &str, prefix: &str, found: &mut Vec<String>) {
    if let Some(inner) = text.strip_prefix('{') {
        *text = inner;
        loop {
            *text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if text.is_empty() || text.starts_with('}') {
                *text = text.get(1..).unwrap_or_default();
                return;
            }
            spell(text, prefix, found);
            // What follows a name is another name for it.
            *text = text.trim_start_matches(|c| c != ',' && c != '}');
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    let path = if name.is_empty() { prefix.to_owned() } else { format!("{prefix}::{name}") };
    *text = after;
    match after.strip_prefix("::") {
        Some(after) => {
            *text = after;
            spell(text, &path, found);
        }
        None => found.push(path),
    }
}

/// What is left when the modules are taken away that import nothing, or that nobody imports: circles, and what lies
/// between them.
fn circles(mut imports: Imports) -> Imports {
    loop {
        let imported: BTreeSet<String> = imports.values().flatten().cloned().collect();
        let importing: BTreeSet<String> = imports.keys().cloned().collect();
        let count = imports.len();
        imports.retain(|module, _| imported.contains(module));
        for found in imports.values_mut() {
            found.retain(|module| importing.contains(module));
        }
        imports.retain(|_, found| !found.is_empty());
        if imports.len() == count {
            return imports;
        }
    }
}

/// Whether a module lies in another.
fn is_inside(module: &str, other: &str) -> bool {
    module.strip_prefix(other).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn modules_import_in_one_direction() {
    for own in CRATES {
        let mut imports = imports(own);
        for (module, imported) in &mut imports {
            imported.retain(|other| !is_inside(module, other));
        }
        let circles = circles(imports);
        let told: Vec<String> =
            circles.iter().map(|(module, imported)| format!("{module} imports {imported:?}")).collect();
        assert!(told.is_empty(), "modules of {own} that import each other:\n{}", told.join("\n"));
    }
}

#[test]
fn nothing_imports_the_roof_it_lies_under() {
    for own in CRATES {
        for (module, imported) in imports(own) {
            for roof in [own, ROOF] {
                let is_under = is_inside(&module, roof);
                assert!(!(is_under && imported.contains(roof)), "{module} imports {roof}");
            }
        }
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "
//! A comment names crate::comment.
pub(crate) mod child;
mod other;
use crate::a::{self, b::{C as D, e}, f::*};
use super::sibling::Thing;
fn f() -> crate::g::H<crate::i::J> { child::call(not_child::call, x::other::no) }
";
    let found = paths_of("own", "own::up::here", text);
    let expected = [
        "own::a::self",
        "own::a::b::C",
        "own::a::b::e",
        "own::a::f",
        "own::g::H",
        "own::i::J",
        "own::up::sibling::Thing",
        "own::up::here::child::call",
    ];
    assert_eq!(found, expected);
}

#[test]
fn circles_are_told_from_what_only_leads_to_them() {
    let graph = |edges: &[(&str, &[&str])]| -> Imports {
        let of = |(module, imported): &(&str, &[&str])| {
            ((*module).to_owned(), imported.iter().map(|name| (*name).to_owned()).collect())
        };
        edges.iter().map(of).collect()
    };
    let straight = graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
    assert_eq!(circles(straight), Imports::new());
    let bent = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b", "d"]), ("d", &[])]);
    assert_eq!(circles(bent), graph(&[("b", &["c"]), ("c", &["b"])]));
}
