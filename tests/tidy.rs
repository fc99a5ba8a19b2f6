//! The rules of the source that no lint knows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Where Rust source may be.
const SOURCE_DIRECTORIES: [&str; 3] = ["crates", "tests", "benches"];

/// The longest file, in lines.
const FILE_LINES_MAX: usize = 600;

/// The crates of the project, below the name that all share.
const CRATE: &str = "reinstate";

/// Where the table of crates is, between two comments.
const GRAPH_PAGE: &str = "docs/architecture.md";
const GRAPH_START: &str = "<!-- crate graph: tests/tidy.rs compares it with the manifests -->";
const GRAPH_END: &str = "<!-- end of crate graph -->";

/// The page that names the tests of every guarantee, in a table between two comments.
const GUARANTEES_PAGE: &str = "docs/guarantees.md";
const THREATS_START: &str = "<!-- threats: tests/tidy.rs looks for every test -->";
const TRAPS_START: &str = "<!-- traps: tests/tidy.rs checks that the tests exist -->";
const TRAPS_END: &str = "<!-- end of traps -->";
const THREATS_END: &str = "<!-- end of threats -->";

type Graph = BTreeMap<String, Edges>;

/// What a crate depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Edges {
    normal: BTreeSet<String>,
    dev: BTreeSet<String>,
}

fn root() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    path.to_path_buf()
}

/// Every file below a directory whose name ends like this, but for what is hidden or built.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                found.extend(files(&path, extension));
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// Names every source file for which `complain` has something to say.
#[track_caller]
fn check_sources(complain: impl Fn(&str) -> Option<String>) {
    let root = root();
    let sources: Vec<PathBuf> = SOURCE_DIRECTORIES
        .iter()
        .flat_map(|directory| files(&root.join(directory), "rs"))
        .collect();
    assert!(sources.len() > 50, "found only {} files", sources.len());
    let complaints: Vec<String> = sources
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(&root).unwrap();
            Some(format!("{}: {}", path.display(), complain(&text)?))
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is() {
    check_sources(|text| {
        let is_described = text.starts_with("//! ");
        (!is_described).then(|| "does not open with `//!`".to_owned())
    });
}

#[test]
fn no_file_is_too_long_to_read() {
    check_sources(|text| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{lines} lines, {FILE_LINES_MAX} are the most"))
    });
}

#[test]
fn nothing_is_left_to_do() {
    // Put together here, so that this file does not hold what it looks for.
    let markers = ["todo", "unimplemented"].map(|name| format!("{name}!"));
    check_sources(|text| {
        let marker = markers.iter().find(|marker| text.contains(*marker))?;
        Some(format!("has a {marker}"))
    });
}

#[test]
fn source_is_ascii() {
    check_sources(|text| {
        let line = text.lines().position(|line| !line.is_ascii())?;
        Some(format!("line {} is not ASCII", line + 1))
    });
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    check_named_tests(GUARANTEES_PAGE, (THREATS_START, THREATS_END), 20);
}

#[test]
fn every_trap_of_postgresql_has_the_tests_that_the_page_names() {
    check_named_tests("docs/postgres.md", (TRAPS_START, TRAPS_END), 14);
}

/// The last column of each row of a table names tests that there are.
#[track_caller]
fn check_named_tests(page: &str, (start, end): (&str, &str), rows_min: usize) {
    let page = fs::read_to_string(root().join(page)).unwrap();
    let (_, table) = page.split_once(start).unwrap();
    let (table, _) = table.split_once(end).unwrap();
    let tests: BTreeSet<String> = SOURCE_DIRECTORIES
        .iter()
        .flat_map(|directory| files(&root().join(directory), "rs"))
        .flat_map(|path| functions(&fs::read_to_string(path).unwrap()))
        .collect();
    let rows: Vec<&str> = table
        .lines()
        .skip(4)
        .filter(|row| !row.is_empty())
        .collect();
    assert!(rows.len() >= rows_min, "found only {} rows", rows.len());
    for row in rows {
        let named = row.rsplit('|').nth(1).unwrap();
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test covers this: {row}");
        for test in named {
            assert!(tests.contains(test), "there is no test {test}: {row}");
        }
    }
}

/// The names of all functions of a source file without arguments or in a macro: its tests among them.
fn functions(text: &str) -> Vec<String> {
    let named = text.split("fn ").skip(1);
    let names = named.filter_map(|rest| rest.split(['(', '<']).next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_package_obeys_the_lints_of_the_workspace() {
    for (name, manifest) in manifests() {
        let lints = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        assert_eq!(lints.and_then(toml::Value::as_bool), Some(true), "{name}");
    }
}

#[test]
fn the_crate_graph_is_the_documented_one() {
    let documented = documented_graph(&fs::read_to_string(root().join(GRAPH_PAGE)).unwrap());
    let found: Graph = manifests()
        .iter()
        .map(|(name, manifest)| (name.clone(), edges(manifest)))
        .collect();
    let names = |graph: &Graph| -> Vec<String> { graph.keys().cloned().collect() };
    assert_eq!(
        names(&found),
        names(&documented),
        "the crates of {GRAPH_PAGE}"
    );
    for (name, edges) in &found {
        assert_eq!(
            *edges, documented[name],
            "{name}: on the left its manifest, on the right {GRAPH_PAGE}; a new arrow needs a \
             decision record in docs/adr"
        );
    }
}

#[test]
fn the_crate_graph_has_no_cycle_dev_arrows_included() {
    let mut waiting = documented_graph(&fs::read_to_string(root().join(GRAPH_PAGE)).unwrap());
    while !waiting.is_empty() {
        let left: BTreeSet<String> = waiting.keys().cloned().collect();
        waiting.retain(|_, edges| {
            edges
                .normal
                .union(&edges.dev)
                .any(|used| left.contains(used))
        });
        assert!(waiting.len() < left.len(), "a cycle through {left:?}");
    }
}

/// The manifests of all packages of the workspace by their names.
fn manifests() -> BTreeMap<String, Table> {
    let mut manifests = BTreeMap::new();
    for directory in SOURCE_DIRECTORIES {
        for path in files(&root().join(directory), "toml") {
            if path.ends_with("Cargo.toml") {
                let manifest: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
                let name = manifest["package"]["name"].as_str().unwrap().to_owned();
                assert_eq!(manifests.insert(name, manifest), None, "{}", path.display());
            }
        }
    }
    assert!(
        manifests.len() > 5,
        "found only {} packages",
        manifests.len()
    );
    manifests
}

/// What a manifest says that a package uses of the project's own crates, on any platform.
fn edges(manifest: &Table) -> Edges {
    let platforms = manifest.get("target").and_then(toml::Value::as_table);
    let platforms = platforms
        .into_iter()
        .flatten()
        .map(|(_, of)| of.as_table().unwrap());
    let mut edges = Edges::default();
    for part in platforms.chain([manifest]) {
        edges.normal.extend(own_crates(part, "dependencies"));
        edges.normal.extend(own_crates(part, "build-dependencies"));
        edges.dev.extend(own_crates(part, "dev-dependencies"));
    }
    edges
}

fn own_crates(part: &Table, section: &str) -> Vec<String> {
    let section = part.get(section).and_then(toml::Value::as_table);
    let entries = section.into_iter().flatten();
    entries
        .map(|(name, entry)| {
            // A dependency may go under another name.
            let renamed = entry.get("package").and_then(toml::Value::as_str);
            renamed.unwrap_or(name).to_owned()
        })
        .filter(|name| is_own(name))
        .collect()
}

fn is_own(name: &str) -> bool {
    name.strip_prefix(CRATE)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The table of a page: a crate, what it uses, what its tests use besides.
fn documented_graph(page: &str) -> Graph {
    let (_, table) = page.split_once(GRAPH_START).unwrap();
    let (table, _) = table.split_once(GRAPH_END).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<BTreeSet<String>> = row.split('|').map(crates_in).collect();
        let [_, name, normal, dev, ..] = cells.as_slice() else {
            panic!("a row without its three cells: {row}")
        };
        let name = name.first().unwrap().clone();
        let (normal, dev) = (normal.clone(), dev.clone());
        (name, Edges { normal, dev })
    })
    .collect()
}

/// What stands between backquotes in a cell, after the name that all share is put before it.
fn crates_in(cell: &str) -> BTreeSet<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted
        .map(|name| match name {
            CRATE => name.to_owned(),
            short => format!("{CRATE}-{short}"),
        })
        .collect()
}
