use std::collections::BTreeMap;
use std::path::Path;

use retune_tensor::backend::profile::Span;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Error, Result};

/// What all calls of one kernel take in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpCost {
    /// The kernel; products with their rows, columns and depth.
    pub name: String,
    /// Calls a step.
    pub calls: usize,
    /// Of all calls.
    pub seconds: f64,
    /// Of the time of all kernels.
    pub share: f64,
    /// Floating point operations a second, of products.
    pub flops_per_second: f64,
    /// Read and written a second, each operand counted once.
    pub bytes_per_second: f64,
}

/// The calls of `steps` steps, added up by kernel; the slowest first.
pub(super) fn by_kernel(spans: &[Span], steps: usize) -> Vec<OpCost> {
    let mut sums: BTreeMap<String, (usize, f64, usize, usize)> = BTreeMap::new();
    for span in spans {
        let sum = sums.entry(name(span)).or_default();
        sum.0 += 1;
        sum.1 += span.duration.as_secs_f64();
        sum.2 += span.flops;
        sum.3 += span.bytes;
    }
    let all: f64 = sums.values().map(|sum| sum.1).sum();
    let steps = steps.max(1);
    let mut costs: Vec<_> = sums
        .into_iter()
        .map(|(name, (calls, seconds, flops, bytes))| OpCost {
            name,
            calls: calls / steps,
            seconds: seconds / steps as f64,
            share: seconds / all,
            flops_per_second: flops as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
        })
        .collect();
    costs.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    costs
}

/// Writes the calls in the Trace Event Format, which browsers' trace viewers open.
pub(super) fn write_trace(spans: &[Span], path: &Path) -> Result<()> {
    let events: Vec<Value> = spans
        .iter()
        .map(|span| {
            json!({
                "name": name(span),
                "cat": "kernel",
                "ph": "X",
                "pid": 1,
                "tid": 1,
                "ts": span.start.as_secs_f64() * 1e6,
                "dur": span.duration.as_secs_f64() * 1e6,
                "args": {"flops": span.flops, "bytes": span.bytes},
            })
        })
        .collect();
    let text = json!({"traceEvents": events, "displayTimeUnit": "ms"}).to_string();
    std::fs::write(path, text).map_err(|error| Error::place(path, format!("cannot write: {error}")))
}

fn name(span: &Span) -> String {
    match span.sizes {
        Some([m, n, k]) => format!("{} {m}x{n}x{k}", span.name),
        None => span.name.to_string(),
    }
}
