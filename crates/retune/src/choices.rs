//! What is chosen where the user says nothing, and the sentence that says why.

use retune_adapt::peft::{self, Method};
use retune_model::formats::Weights;

use crate::{Result, Source};

/// Something that was chosen.
pub(crate) struct Choice<T> {
    pub value: T,
    pub why: String,
}

/// Bytes a parameter that training all of them takes: weight, gradient and two moments, each f32.
const FULL_BYTES: usize = 16;

/// The method: the adapter's own, the one asked for, or by the size of the model.
pub(crate) fn method(asked: Option<&str>, source: &Source) -> Result<Choice<&'static dyn Method>> {
    if let Some((maker, files)) = &source.adapter {
        let method = asked.map(peft::find).transpose()?.unwrap_or(*maker);
        if !method.goes_on(files)? {
            let message = format!(
                "the model is an adapter of `{}`, which cannot go on as `{}`",
                maker.name(),
                method.name()
            );
            return Err(crate::Error::Setting { flag: "method", message });
        }
        let why = format!(
            "method {}: the model is an adapter of it, and training goes on from its values",
            method.name()
        );
        return Ok(Choice { value: method, why });
    }
    if let Some(name) = asked {
        let value = peft::find(name)?;
        return Ok(Choice { value, why: format!("method {name}: {}", value.summary()) });
    }
    let weights = Weights::open(&source.base)?;
    let parameters: usize = weights
        .names()
        .filter_map(|name| weights.info(name))
        .map(|info| info.shape.iter().product::<usize>())
        .sum();
    let millions = parameters as f64 / 1e6;
    let needed = parameters * FULL_BYTES;
    // A third of what is free leaves room for activations, and for what else the machine is doing.
    let fits = available_memory().is_none_or(|free| needed < free / 3);
    let gib = needed as f64 / f64::from(1 << 30);
    let (name, reason) = if fits {
        (
            "full",
            format!(
                "{millions:.0} M parameters, {gib:.1} GiB to train all of them, which fits and gives the best quality"
            ),
        )
    } else {
        ("lora", format!("{millions:.0} M parameters would need {gib:.1} GiB to train all of them"))
    };
    let value = peft::find(name)?;
    Ok(Choice { value, why: format!("method {name}: {reason}; --method chooses another") })
}

/// Bytes that can be had now, where the system tells.
pub(crate) fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<usize>().ok()? * 1024)
}
