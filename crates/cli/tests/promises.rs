//! Every test that `docs/promises.md` names is there, and is a test.

use std::path::Path;

#[test]
fn every_named_test_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let named: Vec<_> = page.split('`').filter_map(|words| words.split_once("::")).collect();
    assert!(named.len() > 15, "the page names {} tests", named.len());
    for (file, test) in named {
        let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let before = source.split(&format!("fn {test}()")).next().unwrap();
        let attributes = before.rsplit("\n\n").next().unwrap();
        assert!(before.len() < source.len() && attributes.contains("#[test]"), "{file} has no test `{test}`");
    }
}
