use retune::bench::{MethodCost, method_costs};
use serde_json::json;

use crate::failure::Failure;
use crate::output::{Output, table};

/// What can be trained of a model, and when to choose which
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune methods
  retune methods --json")]
pub(crate) struct Args {}

/// The model that costs are told of.
const SHAPE: &str = "minilm";

pub(crate) fn run(_: &Args, output: &Output) -> Result<(), Failure> {
    let costs = method_costs(SHAPE)?;
    let methods: Vec<_> = retune::METHODS
        .iter()
        .zip(&costs)
        .map(|(method, cost)| {
            let options: Vec<_> = method
                .options()
                .iter()
                .map(|option| json!({"name": option.name, "takes": option.kind.words(), "default": option.default, "help": option.help}))
                .collect();
            json!({
                "name": method.name(),
                "trains": method.summary(),
                "when": method.when(),
                "paper": method.paper(),
                "learning_rate": method.learning_rate(),
                "merges": method.merges().is_ok(),
                "why_not": method.merges().err(),
                "cost": {
                    "shape": SHAPE,
                    "trainable_parameters": cost.trainable_parameters,
                    "base_parameters": cost.base_parameters,
                    "inference_work": cost.inference_work,
                },
                "options": options,
            })
        })
        .collect();
    let tasks: Vec<_> = retune::TASKS
        .iter()
        .map(|task| {
            let forms: Vec<_> = task
                .forms()
                .iter()
                .map(|form| {
                    let (name, metric) = (form.problem_type.map(retune::ProblemType::name), form.decides);
                    json!({"problem_type": name, "summary": form.summary, "metric": metric})
                })
                .collect();
            json!({"name": task.name(), "summary": task.summary(), "forms": forms})
        })
        .collect();
    let families: Vec<_> = retune::FAMILIES
        .iter()
        .map(|family| json!({"model_type": family.model_type(), "summary": family.summary()}))
        .collect();
    output.result(&json!({"methods": methods, "tasks": tasks, "families": families}), || text(&costs))
}

fn text(costs: &[MethodCost]) -> String {
    let mut text = String::new();
    for (method, cost) in retune::METHODS.iter().zip(costs) {
        text.push_str(&format!("{}: trains {}\n", method.name(), method.summary()));
        text.push_str(&format!("  when: {}\n", method.when()));
        let share = 100.0 * cost.trainable_parameters as f64 / cost.base_parameters.max(1) as f64;
        let merges = match method.merges() {
            Ok(()) => "merges into the base".to_string(),
            Err(why) => format!("does not merge: {why}"),
        };
        let work = 100.0 * cost.inference_work;
        text.push_str(&format!(
            "  of {SHAPE}: {share:.2}% trained, {work:.1}% more work at inference; {merges}\n"
        ));
        text.push_str(&format!("  learning rate {}; {}\n", method.learning_rate(), method.paper()));
        let rows: Vec<_> = method
            .options()
            .iter()
            .map(|option| {
                vec![format!("  --{}", option.name), format!("{} [default: {}]", option.help, option.default)]
            })
            .collect();
        let wide = table(&rows);
        text.push_str(&wide);
    }
    text.push_str("\ntasks: ");
    text.push_str(
        &retune::TASKS
            .iter()
            .map(|task| format!("{} ({})", task.name(), task.summary()))
            .collect::<Vec<_>>()
            .join(", "),
    );
    text.push_str("\nmodels: ");
    let families =
        retune::FAMILIES.iter().map(|family| format!("{} ({})", family.model_type(), family.summary()));
    text.push_str(&families.collect::<Vec<_>>().join(", "));
    text.push('\n');
    text
}
