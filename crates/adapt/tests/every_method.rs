//! Every method of the registry through one table: what it trains, that it starts from the pretrained model, that its
//! gradients are right, and what it saves.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use golden::{Case, given, is_virtual, options, relative, starts_near};
use retune_adapt::Kind;
use retune_adapt::peft::{self, Applied, Form, METHODS, Method};

const BASE: &str = "bert-classifier";
/// It has neither a pooler nor a head.
const BARE: &str = "bert-bare";

/// What is expected of a method, by the names of parameters.
struct Expected {
    /// Which of the base's own parameters are trained.
    base: fn(&str) -> bool,
    /// What the names of added parameters end with.
    added: &'static [&'static str],
    /// Numbers trained of `bert-classifier`, counted by hand.
    count: usize,
}

/// Whether a parameter is left behind in the end: what it makes is saved.
fn left_behind(name: &str) -> bool {
    name.starts_with("prompt_encoder.")
}

fn head(name: &str) -> bool {
    name.starts_with("classifier.")
}

fn pooler(name: &str) -> bool {
    name.starts_with("bert.pooler.")
}

/// The layers of a bottleneck adapter.
const ADAPTER: [&str; 4] =
    ["adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias"];

/// A method without an entry here has no test: that is an error of whoever added it.
fn expected(method: &dyn Method) -> Expected {
    const WIDTH: usize = 20;
    let classifier = WIDTH * 5 + 5;
    let pooling = WIDTH * WIDTH + WIDTH;
    let bottleneck = 2 * WIDTH * 4 + WIDTH + 4;
    match method.name() {
        "full" => Expected {
            base: |_| true,
            added: &[],
            count: (61 + 23 + 3) * WIDTH
                + 2 * WIDTH
                + 3 * (4 * pooling + 2 * 37 * WIDTH + 37 + WIDTH + 4 * WIDTH)
                + pooling
                + classifier,
        },
        "head" => {
            Expected { base: |name| head(name) || pooler(name), added: &[], count: pooling + classifier }
        }
        "bitfit" => Expected {
            base: |name| head(name) || pooler(name) || name.ends_with(".bias"),
            added: &[],
            count: WIDTH + 3 * (5 * WIDTH + 37 + 2 * WIDTH) + pooling + classifier,
        },
        "norms" => Expected {
            base: |name| head(name) || pooler(name) || name.contains("LayerNorm"),
            added: &[],
            count: 7 * 2 * WIDTH + pooling + classifier,
        },
        "top-layers" => Expected {
            base: |name| head(name) || pooler(name) || name.contains("layer.2."),
            added: &[],
            count: 4 * pooling + 2 * 37 * WIDTH + 37 + WIDTH + 4 * WIDTH + pooling + classifier,
        },
        "lora" => Expected {
            base: head,
            added: &[".lora_A.weight", ".lora_B.weight"],
            count: 3 * 8 * (4 * 2 * WIDTH + 2 * (WIDTH + 37)) + classifier,
        },
        "dora" => Expected {
            base: head,
            added: &[".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"],
            count: 3 * (8 * (4 * 2 * WIDTH + 2 * (WIDTH + 37)) + 5 * WIDTH + 37) + classifier,
        },
        "adalora" => Expected {
            base: head,
            added: &[".lora_A", ".lora_B", ".lora_E"],
            count: 3 * 12 * (4 * 2 * WIDTH + 2 * (WIDTH + 37) + 6) + classifier,
        },
        "vera" => Expected {
            base: head,
            added: &[".vera_lambda_b", ".vera_lambda_d"],
            count: 3 * (6 * 256 + 5 * WIDTH + 37) + classifier,
        },
        "ia3" => Expected { base: head, added: &[".ia3_l"], count: 3 * (2 * WIDTH + 37) + classifier },
        "loha" => Expected {
            base: head,
            added: &[".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b"],
            count: 3 * 2 * 8 * (4 * 2 * WIDTH + 2 * (WIDTH + 37)) + classifier,
        },
        "lokr" => Expected {
            base: head,
            added: &[".lokr_w1", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b"],
            // 20 is 4 x 5 and 37 is 1 x 37: a square of 5 is whole, 37 beside 5 is a product of rank 8.
            count: 3 * (4 * (16 + 25) + 2 * (4 + 8 * (37 + 5))) + classifier,
        },
        "oft" => Expected {
            base: head,
            added: &[".oft_R.weight"],
            // One block of all channels, as 32 is nearest to them.
            count: 3 * (5 * 20 * 19 / 2 + 37 * 36 / 2) + classifier,
        },
        "houlsby" => Expected { base: head, added: &ADAPTER, count: 6 * bottleneck + classifier },
        "pfeiffer" | "parallel-adapter" => {
            Expected { base: head, added: &ADAPTER, count: 3 * bottleneck + classifier }
        }
        "compacter" => Expected {
            base: head,
            added: &[".W_left", ".W_right", ".b", ".phm_rule"],
            // Two products of rank 1 in each of two layers, between widths of 20 / 2 and 4 / 2.
            count: 6 * (2 * 2 * (WIDTH / 2 + 2) + WIDTH + 4) + 2 * 2 * 2 + classifier,
        },
        // Keys and values of three blocks: 120 columns a row.
        "prefix-tuning" => Expected {
            base: head,
            added: &["embedding.weight", ".0.weight", ".0.bias", ".2.weight", ".2.bias"],
            count: 5 * WIDTH + 512 * (WIDTH + 1) + 120 * (512 + 1) + classifier,
        },
        "p-tuning-v2" => Expected { base: head, added: &["prompt_embeddings"], count: 5 * 120 + classifier },
        "prompt-tuning" => {
            Expected { base: head, added: &["prompt_embeddings"], count: 5 * WIDTH + classifier }
        }
        "p-tuning" => Expected {
            base: head,
            added: &[
                "embedding.weight",
                ".0.weight",
                ".0.bias",
                ".2.weight",
                ".2.bias",
                ".4.weight",
                ".4.bias",
            ],
            count: 5 * WIDTH + 128 * (WIDTH + 1) + 128 * (128 + 1) + WIDTH * (128 + 1) + classifier,
        },
        other => panic!("`{other}` has no entry in this table"),
    }
}

fn with(base: &str, keep_head: bool, method: &dyn Method) -> Case {
    Case::open(base, keep_head, |model| method.apply(model, &options(&given(method)))).unwrap()
}

#[test]
fn exactly_what_it_says_is_trained() {
    for method in METHODS {
        let case = with(BASE, true, *method);
        let Expected { base, added, count } = expected(*method);
        let own = Case::base(BASE, true);
        for (_, parameter) in case.parameters.iter() {
            let name = parameter.name.as_str();
            let wanted = match own.parameters.find(name) {
                Some(_) => base(name),
                None => added.iter().any(|end| name.ends_with(end)),
            };
            assert_eq!(parameter.trainable, wanted, "{}: {name}", method.name());
        }
        assert_eq!(case.parameters.count().1, count, "{}", method.name());
    }
}

#[test]
fn the_pretrained_model_is_where_it_starts() {
    for method in METHODS.iter().filter(|method| !is_virtual(**method)) {
        for (base, keep_head) in [(BASE, true), (BASE, false), (BARE, false)] {
            let start = with(base, keep_head, *method).logits();
            let pretrained = Case::base(base, keep_head).logits();
            if starts_near(*method) {
                let moved = relative(&start, &pretrained);
                assert!(moved > 0.0 && moved < 0.01, "{} on {base}: {moved}", method.name());
            } else {
                assert_eq!(start, pretrained, "{} on {base}", method.name());
            }
        }
    }
}

#[test]
fn gradients_reach_what_is_trained_and_nothing_else() {
    for method in METHODS {
        let case = with(BASE, true, *method);
        let gradients = case.gradients();
        for (id, parameter) in case.parameters.iter() {
            let reached = gradients.get(id).is_some();
            assert_eq!(reached, parameter.trainable, "{}: {}", method.name(), parameter.name);
        }
    }
}

#[test]
fn gradients_follow_finite_differences() {
    for method in METHODS {
        let mut all = given(*method);
        // A difference across the corner of a ReLU is no slope.
        let chosen = method.options().iter().any(|option| option.name == "non-linearity");
        all.extend(chosen.then_some(("non-linearity", "gelu")));
        let mut case = Case::open(BASE, true, |model| method.apply(model, &options(&all))).unwrap();
        // Away from the start, where a branch's B is 0 and its A has no gradient.
        let trained: Vec<String> = case.trained().iter().map(ToString::to_string).collect();
        for (salt, name) in trained.iter().enumerate() {
            let id = case.parameters.find(name).unwrap();
            let values = case.parameters.get(id).value.f32().to_vec();
            case.set(name, |index| values[index] + (((index + salt) * 29 % 17) as f32 - 8.0) * 0.01);
        }
        let gradients = case.gradients();
        let mut checked = 0;
        for name in &trained {
            let id = case.parameters.find(name).unwrap();
            let gradient = gradients.get(id).unwrap().f32().to_vec();
            let values = case.parameters.get(id).value.f32().to_vec();
            let at =
                (0..gradient.len()).max_by(|a, b| gradient[*a].abs().total_cmp(&gradient[*b].abs())).unwrap();
            // DoRA's norm moves with A and B, and is a constant to their gradients: peft's are the reference for them.
            if method.name() == "dora" && (name.contains("lora_A") || name.contains("lora_B")) {
                continue;
            }
            // A key's bias adds the same to all scores of a row: its gradient is 0.
            if gradient[at].abs() < 1e-3 {
                continue;
            }
            let step = 1e-2;
            let mut moved = |by: f32| {
                case.set(name, |index| if index == at { values[index] + by } else { values[index] });
                f64::from(case.loss())
            };
            let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            moved(0.0);
            let error = (slope - f64::from(gradient[at])).abs() / f64::from(gradient[at].abs());
            assert!(error < 0.03, "{}: {name}[{at}]: {} and {slope}", method.name(), gradient[at]);
            checked += 1;
        }
        let least = if method.name() == "dora" { trained.len() / 4 } else { trained.len() / 2 };
        assert!(checked > least, "{}: {checked} of {}", method.name(), trained.len());
    }
}

#[test]
fn a_row_in_a_batch_equals_the_row_alone() {
    for method in METHODS {
        let mut case = with(BASE, true, *method);
        let trained: Vec<String> = case.trained().iter().map(ToString::to_string).collect();
        for (salt, name) in trained.iter().enumerate() {
            let values = case.values(name);
            case.set(name, |index| values[index] + (((index + salt) * 29 % 17) as f32 - 8.0) * 0.02);
        }
        for (row, logits) in case.logits().chunks(case.rows.num_labels).enumerate() {
            let difference = relative(&case.logits_of(&[row]), logits);
            assert!(difference < 1e-5, "{}: row {row}: {difference}", method.name());
        }
    }
}

#[test]
fn merged_weights_compute_the_same() {
    for method in METHODS {
        let mut case = with(BASE, true, *method);
        if let Err(why) = method.merges() {
            let error = case.adjust(|model| method.merge(model)).unwrap_err().to_string();
            assert!(error.ends_with(&format!("cannot be merged into the base: {why}")), "{error}");
            assert_eq!(
                case.applied == Applied::Model,
                why.contains("a whole model"),
                "{}: {why}",
                method.name()
            );
            continue;
        }
        let start = case.logits();
        let trained: Vec<String> = case.trained().iter().map(ToString::to_string).collect();
        for (salt, name) in trained.iter().enumerate() {
            let id = case.parameters.find(name).unwrap();
            let values = case.parameters.get(id).value.f32().to_vec();
            case.set(name, |index| values[index] + (((index + salt) * 29 % 17) as f32 - 8.0) * 0.02);
        }
        let unmerged = case.logits();
        assert!(relative(&unmerged, &start) > 1e-3, "{}", method.name());
        case.adjust(|model| method.merge(model)).unwrap();
        let difference = relative(&case.logits(), &unmerged);
        assert!(difference < 1e-5, "{}: {difference}", method.name());
        let names = case.classifier.encoder().linears();
        assert!(names.iter().all(|linear| case.hooks.linear(&linear.name).is_none()), "{}", method.name());
    }
}

#[test]
fn what_the_base_lacked_is_trained_by_every_method_and_saved() {
    for method in METHODS {
        let case = with(BARE, false, *method);
        let lacked =
            ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"];
        assert_eq!(case.fresh, lacked);
        for name in lacked {
            assert!(case.trained().contains(&name), "{}: {name} stays noise", method.name());
        }
        if let Applied::Adapter(adapter) = &case.applied {
            let prefix = match adapter.form {
                Form::Peft => {
                    let modules: Vec<_> = adapter.config["modules_to_save"].as_array().unwrap().clone();
                    assert_eq!(modules, ["classifier", "pooler"], "{}", method.name());
                    if is_virtual(*method) { "base_model." } else { "base_model.model." }
                }
                Form::Adapters => "",
            };
            for name in lacked {
                assert!(case.saved().contains(&format!("{prefix}{name}").as_str()), "{name}");
            }
        }
    }
}

#[test]
fn an_adapter_holds_what_is_trained_once_and_nothing_else() {
    for method in METHODS {
        let case = with(BASE, true, *method);
        let Applied::Adapter(adapter) = &case.applied else {
            // The whole model is written under the checkpoint's own names.
            assert!(case.parameters.iter().all(|(_, p)| head(&p.name) || p.name.starts_with("bert.")));
            assert!(case.hooks.linear("bert.encoder.layer.0.attention.self.query").is_none());
            continue;
        };
        // The random matrices that VeRA's layers share are saved and not trained.
        let is_shared = |name: &str| name.starts_with("base_model.vera_");
        let own = adapter.tensors.iter().filter(|(name, _)| !is_shared(name));
        let mut saved: Vec<_> = own.clone().map(|(_, id)| *id).collect();
        saved.sort_unstable();
        let trained = case.parameters.trainable().filter(|(_, parameter)| !left_behind(&parameter.name));
        assert_eq!(saved, trained.map(|(id, _)| id).collect::<Vec<_>>(), "{}", method.name());
        let computed = adapter.computed(&case.hooks, &case.parameters).unwrap();
        assert_eq!(computed.is_some(), case.trained().iter().any(|name| left_behind(name)));
        if adapter.form == Form::Adapters {
            for (name, id) in &adapter.tensors {
                assert_eq!(*name, case.parameters.get(*id).name, "{}", method.name());
            }
            continue;
        }
        for (name, id) in own {
            let own = &case.parameters.get(*id).name;
            let expected = match own.as_str() {
                "prompt_embeddings" => own.clone(),
                own if is_virtual(*method) => format!("base_model.{own}"),
                own => format!("base_model.model.{}", own.trim_start_matches("base_model.model.")),
            };
            assert_eq!(*name, expected, "{}", method.name());
        }
        let where_it_is = if is_virtual(*method) { "num_virtual_tokens" } else { "target_modules" };
        for key in ["peft_type", where_it_is, "modules_to_save", "inference_mode"] {
            assert!(adapter.config.contains_key(key), "{}: {key}", method.name());
        }
    }
}

#[test]
fn the_same_seed_draws_the_same_weights() {
    for method in METHODS {
        let [one, two] = [(), ()].map(|()| with(BARE, false, *method));
        for ((_, left), (_, right)) in one.parameters.iter().zip(two.parameters.iter()) {
            assert_eq!(left.value.f32(), right.value.f32(), "{}: {}", method.name(), left.name);
        }
    }
}

#[test]
fn options_and_words_are_there_for_each() {
    for method in METHODS {
        let refused =
            Case::open(BASE, true, |model| method.apply(model, &options(&[("no-such-thing", "1")])));
        let error = refused.err().unwrap().to_string();
        assert!(error.starts_with("--no-such-thing: the method `"), "{}: {error}", method.name());
        for words in [method.name(), method.summary(), method.when(), method.paper()] {
            assert!(!words.is_empty() && !words.ends_with('.'), "{}: {words}", method.name());
        }
        assert!(method.learning_rate() > 0.0);
        assert_eq!(peft::find(method.name()).unwrap().name(), method.name());
        // What the help calls the default is taken, and is the default. Those that are said in words have no value of
        // their own; the width is said by one of two; and a text may be any.
        for option in method.options().iter().filter(|option| !option.default.contains(' ')) {
            let mut all = given(*method);
            if all.iter().any(|(name, _)| *name == option.name)
                || option.name == "reduction-factor"
                || option.kind == Kind::Text
            {
                continue;
            }
            all.push((option.name, option.default));
            let given = options(&all);
            let case = Case::open(BASE, true, |model| method.apply(model, &given)).unwrap();
            assert_eq!(case.applied, with(BASE, true, *method).applied, "{} {}", method.name(), option.name);
        }
    }
    let error = peft::find("lroa").err().unwrap().to_string();
    let names: Vec<&str> = METHODS.iter().map(|method| method.name()).collect();
    let expected =
        format!("method `lroa` is not known, did you mean `lora`?; there are: {}", names.join(", "));
    assert_eq!(error, expected);
}

#[test]
fn an_option_of_another_method_names_it() {
    for (method, option, expected) in [
        ("full", "rank", "--rank: is an option of lora; give --method lora"),
        ("bitfit", "target-modules", "--target-modules: is an option of lora; give --method lora"),
        ("head", "wings", "--wings: the method `head` has no options"),
    ] {
        let method = peft::find(method).unwrap();
        let error = Case::open(BASE, true, |model| method.apply(model, &options(&[(option, "4")])));
        assert_eq!(error.err().unwrap().to_string(), expected);
    }
}
