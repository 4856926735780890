//! Adapters merged, added and mixed, from the command line.

use crate::command::{retune, train};
use crate::tiny::Tiny;

#[test]
fn an_adapter_becomes_a_model_a_sum_and_one_of_many() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    for (seed, name) in [("1", "a"), ("2", "b")] {
        train(&tiny, name, &["--method", "lora", "--seed", seed]).succeeded();
    }

    let (a, merged, rows) = (path("a"), path("merged"), path("test.csv"));
    let done = retune(&["merge", "--model", &a, "--output", &merged, "--data", &rows, "--json"]).succeeded();
    let document = done.json();
    assert!(document["max_logit_difference"].as_f64().unwrap() < 1e-5, "{document}");
    assert!(done.stderr.contains("next:"), "{}", done.stderr);
    let text = retune(&["merge", "--model", &a, "--output", &merged, "--overwrite"]).succeeded().stdout;
    assert!(text.contains("max logit difference") && text.contains("on 64 rows of random tokens"), "{text}");
    retune(&["merge", "--model", &merged, "--output", &path("x")]).refused("it is a whole model");
    retune(&["merge", "--model", &a, "--output", &merged]).refused("it holds a result");

    let weighted = [format!("{a}=0.7"), format!("{}=-0.3", path("b"))];
    let sum = path("sum");
    let combine = |more: &[&str]| {
        let mut arguments = vec!["combine", &weighted[0], &weighted[1], "--output", &sum, "--overwrite"];
        arguments.extend(more);
        retune(&arguments)
    };
    let done =
        combine(&["--combination", "ties", "--density", "0.4", "--head", &path("b"), "--json"]).succeeded();
    let document = done.json();
    assert!(document["max_logit_difference"].as_f64().unwrap() > 0.0, "{document}");
    assert_eq!(document["head"].as_str(), Some(path("b").as_str()));
    assert!(
        done.stderr.contains("- the head is that of") && done.stderr.contains("classifier.weight"),
        "{}",
        done.stderr
    );
    combine(&["--combination", "tise"]).refused("combination `tise` is not known, did you mean `ties`?");
    combine(&["--density", "0.4"]).refused("--density: `svd` has no use for it");
    combine(&["--head", &path("c")]).refused("is none of the adapters, did you mean");
    retune(&["combine", &format!("{a}=x"), "--output", &sum])
        .refused("a weight other than 0, such as runs/a=0.7, got `x`");

    tiny.write("rows.csv", "adapter,text\none,my card\ntwo,my card\n");
    let (one, two) = (format!("one={a}"), format!("two={sum}"));
    let (input, out) = (path("rows.csv"), path("out.csv"));
    let mixed = ["predict", "--adapter", &one, "--adapter", &two];
    let done = retune(&[&mixed[..], &["--input", &input, "--output", &out]].concat()).succeeded();
    assert!(done.stderr.contains("2 rows in "), "{}", done.stderr);
    let table = std::fs::read_to_string(&out).unwrap();
    assert!(table.starts_with("adapter,text,label,score\none,my card,"), "{table}");
    let texts = retune(&[&mixed[..], &["--text", "my card", "--json"]].concat()).succeeded().json();
    assert_eq!(
        (&texts["predictions"][1]["adapter"], &texts["predictions"][1]["row"]),
        (&"two".into(), &0.into())
    );
    let said = retune(&[&mixed[..], &["--text", "my card"]].concat()).succeeded().stdout;
    assert!(said.starts_with("one  ") && said.lines().nth(1).unwrap().starts_with("two  "), "{said}");
    // The base may be named, and must then be theirs.
    retune(&[&mixed[..], &["--model", &path("base"), "--text", "my card"]].concat()).succeeded();
    tiny.model("other", 9, |_| ());
    retune(&[&mixed[..], &["--model", &path("other"), "--text", "my card"]].concat())
        .refused("its weights are not those");
    retune(&["predict", "--adapter", "one", "--text", "x"])
        .refused("--adapter: expected a name and the adapter's folder");
    retune(&[&mixed[..], &["--text", "a", "--pair", "b", "--pair", "c"]].concat())
        .refused("--pair: expected one for each --text");
}
