//! A training as it goes: a bar on a terminal, a line now and then elsewhere.

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use retune::{Event, Listener, Observer, OnSpike, Transfer};

use crate::output::{Output, bytes, duration};
use crate::signals::Signals;

pub(crate) struct Progress<'a> {
    output: &'a Output,
    pub(crate) signals: Signals,
    bar: Option<ProgressBar>,
    total: u64,
    /// The step and the time that this process began with.
    began: (u64, f64),
    /// Loss and tokens a second, smoothed so that they can be read.
    loss: Option<f64>,
    speed: Option<f64>,
    seconds: f64,
    last_line: Instant,
    /// When the first bytes of a download came, and how many were here by then.
    download: Option<(Instant, u64)>,
}

/// Without a terminal a line comes this often.
const LINE_EVERY: Duration = Duration::from_secs(20);

impl<'a> Progress<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        Progress {
            output,
            signals: Signals::default(),
            bar: None,
            total: 0,
            began: (0, 0.0),
            loss: None,
            speed: None,
            seconds: 0.0,
            last_line: Instant::now(),
            download: None,
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.say(line)),
            None => self.output.say(line),
        }
    }

    fn begin(&mut self, step: u64, total: u64, seconds: f64) -> io::Result<()> {
        self.total = total;
        self.began = (step, seconds);
        self.seconds = seconds;
        self.last_line = Instant::now();
        if self.output.has_bars() {
            let bar = ProgressBar::new(total).with_position(step);
            let style = ProgressStyle::with_template("{bar:28} {pos}/{len}  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
        self.signals.listen()
    }

    fn step(&mut self, step: u64, loss: f64, tokens: usize, seconds: f64) {
        // The mean of all steps at first, then of late ones above all.
        let seen = (step - self.began.0).clamp(1, 20) as f64;
        let smooth = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + (new - old) / seen));
        let took = (seconds - self.seconds).max(1e-9);
        self.loss = smooth(self.loss, loss);
        self.speed = smooth(self.speed, tokens as f64 / took);
        self.seconds = seconds;
        let (first, before) = self.began;
        let left = (seconds - before) / step.saturating_sub(first).max(1) as f64
            * self.total.saturating_sub(step) as f64;
        let (loss, speed) = (self.loss.unwrap_or(loss), self.speed.unwrap_or(0.0));
        let words = format!("mean loss {loss:.3}  {speed:.0} tokens/s  {} left", duration(left));
        match &self.bar {
            Some(bar) => {
                bar.set_message(words);
                bar.set_position(step);
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                self.output.say(&format!("step {step} of {}  {words}", self.total));
            }
            None => {}
        }
    }
}

impl Observer for Progress<'_> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Start { total_steps, .. } => self.begin(0, *total_steps, 0.0)?,
            Event::Resume { step, total_steps, seconds } => self.begin(*step, *total_steps, *seconds)?,
            Event::Step { step, loss, tokens, seconds, .. } => self.step(*step, *loss, *tokens, *seconds),
            Event::Evaluation { step, epoch, loss, metrics, best, seconds } => {
                let shown = retune::shown(metrics).into_iter().filter(|(name, ..)| *name != "loss").take(2);
                let shown: String = shown.map(|(_, words, value)| format!("{words} {value:.4}, ")).collect();
                self.line(&format!(
                    "epoch {epoch:.2}, step {step}: {shown}loss {loss:.4}{} ({})",
                    if *best { ", best so far" } else { "" },
                    duration(*seconds),
                ));
            }
            Event::EarlyStop { step, evaluations } => {
                self.line(&format!("stopped at step {step}: no better evaluation in the last {evaluations}"));
            }
            Event::Spike { step, loss, usual, action, rewound_to, .. } => {
                let done = match (action, rewound_to) {
                    (OnSpike::Skip, _) => "; its update is dropped".to_string(),
                    (_, Some(to)) => format!("; back to the weights of step {to}"),
                    _ => String::new(),
                };
                self.line(&format!("loss spike at step {step}: {loss:.4}, usual is {usual:.4}{done}"));
            }
            Event::DeadGradients { step, names } => {
                let first: Vec<_> = names.iter().take(3).map(String::as_str).collect();
                let more =
                    if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
                self.line(&format!(
                    "trained, but without any gradient until step {step}: {}{more}",
                    first.join(", ")
                ));
            }
            // The error that follows says more.
            Event::Overflow { .. } => {}
            Event::Checkpoint { step } if self.signals.came() => {
                self.line(&format!(
                    "interrupted: writing a checkpoint after step {step}; once more ends at once"
                ));
            }
            Event::Checkpoint { .. } => {}
            Event::End { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
        Ok(())
    }

    fn interrupted(&self) -> bool {
        self.signals.came()
    }
}

impl Listener for Progress<'_> {
    fn say(&mut self, sentence: &str) {
        self.line(&format!("- {sentence}"));
    }

    fn transfer(&mut self, transfer: Transfer<'_>) {
        let Transfer { file, done, total } = transfer;
        let (start, before) = *self.download.get_or_insert_with(|| {
            self.last_line = Instant::now();
            (Instant::now(), done)
        });
        if self.bar.is_none() && self.output.has_bars() {
            let bar = ProgressBar::new(total);
            let style = ProgressStyle::with_template("{bar:28} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
        let size = |size: u64| bytes(usize::try_from(size).unwrap_or(usize::MAX));
        // A part that was not right comes again, so there may be less than there was.
        let speed = done.saturating_sub(before) as f64 / start.elapsed().as_secs_f64().max(1e-3);
        let left = total.saturating_sub(done) as f64 / speed.max(1.0);
        let words = || {
            // The first moments say nothing of the rest.
            let left = match start.elapsed() < Duration::from_secs(1) {
                true => String::new(),
                false => format!("  {}/s  {} left", size(speed as u64), duration(left)),
            };
            format!("{file}  {} of {}{left}", size(done), size(total))
        };
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_message(words());
                bar.set_position(done);
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                self.output.say(&words());
            }
            None => {}
        }
        if done == total
            && let Some(bar) = self.bar.take()
        {
            bar.finish_and_clear();
        }
    }
}
