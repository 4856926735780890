//! `Device::Meta` tells what a pass would take, to the byte, and takes nothing itself.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod network;

use std::sync::{Mutex, PoisonError};

use network::{Batch, Network, Sizes};
use retune_tensor::{Device, Gradients, Tape, memory};

/// The counters belong to the process: one test at a time.
static COUNTERS: Mutex<()> = Mutex::new(());

/// What is trained, by name, and whether a backward pass follows.
type Case = (&'static str, fn(&str) -> bool, bool);

/// A network, two passes and their gradients: the most bytes that it held at once, and all shapes in order.
fn passes(device: Device, sizes: Sizes, (_, trained, records): Case) -> (usize, Vec<Vec<usize>>) {
    memory::reset_peak(device);
    let start = memory::usage(device).current;
    let network = Network::new(device, sizes, trained);
    let (mut gradients, mut shapes) = (Gradients::new(), Vec::new());
    // The second batch adds to the gradients of the first, and fits its blocks nowhere.
    for rows in [&[(3, 40), (1, 1), (7, 129)][..], &[(2, 9), (1 << 40, 171)]] {
        let tape = if records { Tape::recording() } else { Tape::inference() };
        let loss = network.loss(&tape, &Batch::new(rows, &sizes), 5.0, &mut shapes);
        tape.backward(&loss, &mut gradients).unwrap();
    }
    gradients.norm();
    gradients.scale(0.5).unwrap();
    shapes.extend(gradients.iter().map(|(_, gradient)| gradient.shape().to_vec()));
    let peak = memory::usage(device).peak - start;
    drop((network, gradients));
    assert_eq!(memory::usage(device).current, start, "all that was taken is given back");
    (peak, shapes)
}

const CASES: [Case; 4] = [
    ("everything", |_| true, true),
    ("a low-rank branch", |name| matches!(name, "dense.a" | "dense.b" | "classifier.weight"), true),
    ("the head", |name| name.starts_with("classifier"), true),
    ("prediction", |_| true, false),
];

#[test]
fn meta_counts_what_the_processor_takes() {
    let _counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let sizes = Sizes { entries: 3001, hidden: 132, heads: 6, kv_heads: 2, rank: 5, classes: 7 };
    let mut peaks = Vec::new();
    for case in CASES {
        let (peak, shapes) = passes(Device::Cpu, sizes, case);
        assert_eq!(passes(Device::Meta, sizes, case), (peak, shapes), "{}", case.0);
        peaks.push(peak);
    }
    let weights = 4 * (3001 + 200 + 2 * 132 + 2 * 44) * 132;
    assert!(peaks.iter().all(|peak| *peak > weights), "{peaks:?}");
    assert!(peaks.is_sorted_by(|left, right| left > right), "what is not trained takes no memory: {peaks:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn meta_holds_nothing() {
    /// The most that this process was resident with, in KiB.
    fn resident_peak() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
    let _counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let sizes = Sizes { entries: 99_991, hidden: 98_304, heads: 96, kv_heads: 96, rank: 64, classes: 151 };
    // A tiny pass first: what the test itself and the libraries need once.
    passes(Device::Meta, Sizes { hidden: 192, ..sizes }, CASES[0]);
    let before = resident_peak();
    let (peak, _) = passes(Device::Meta, sizes, CASES[0]);
    assert!(peak > 100 << 30, "{peak} bytes");
    let grown = resident_peak() - before;
    assert!(grown < 1024, "{grown} KiB for a network of {peak} bytes that holds no values");
}
