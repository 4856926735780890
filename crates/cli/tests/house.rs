//! The order of the crates, held by their manifests: a crate uses only those above it.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;

/// From the engine up to the command line.
const ORDER: [&str; 8] = ["tensor", "metrics", "model", "data", "adapt", "train", "retune", "cli"];

/// Which of ours a manifest names, in any of its tables of dependencies.
fn ours(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = toml::from_str(manifest).unwrap();
    let targets = manifest.get("target").into_iter().flat_map(|targets| targets.as_table().unwrap().values());
    let mut found = Vec::new();
    for table in std::iter::once(&manifest).chain(targets.map(|target| target.as_table().unwrap())) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = table.get(kind).into_iter().flat_map(|names| names.as_table().unwrap());
            for (name, value) in names {
                // What is renamed is still what it was.
                let package = value.get("package").and_then(|package| package.as_str()).unwrap_or(name);
                let own = package.strip_prefix("retune-").or((package == "retune").then_some("retune"));
                found.extend(own.map(str::to_string));
            }
        }
    }
    found
}

#[test]
fn a_crate_uses_only_those_above_it() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders: Vec<String> = std::fs::read_dir(crates)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort_by_key(|folder| ORDER.iter().position(|known| known == folder));
    assert_eq!(folders, ORDER, "a new crate takes its place in the order");
    for (place, folder) in ORDER.iter().enumerate() {
        let manifest = std::fs::read_to_string(crates.join(folder).join("Cargo.toml")).unwrap();
        for used in ours(&manifest) {
            let at = ORDER.iter().position(|known| *known == used);
            assert!(at.is_some_and(|at| at < place), "{folder} uses {used}, which is not above it");
        }
    }
}

#[test]
fn every_kind_of_dependency_is_seen() {
    let manifest = "
        [dependencies]
        retune-tensor.workspace = true
        serde = \"1\"
        other = { package = \"retune-model\", path = \"../model\" }
        [dev-dependencies]
        retune = { path = \"../retune\" }
        [target.'cfg(unix)'.dependencies]
        retune-data = { path = \"../data\" }
    ";
    let mut found = ours(manifest);
    found.sort();
    assert_eq!(found, ["data", "model", "retune", "tensor"]);
}
