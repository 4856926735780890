//! Ctrl-C and a request to end: the first is taken up after the step, another ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::exit;

/// What a shell adds to a signal's number to make an exit code of it.
const SHELL: i32 = 128;

/// Signals that come closer together are one request: `timeout` and some terminals send theirs to a process and to its group.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The signals that came since they were listened to.
#[derive(Default)]
pub(crate) struct Signals {
    latest: Arc<AtomicUsize>,
    listening: bool,
}

impl Signals {
    /// Listens from now on. Until then a signal ends the process, as nothing is lost by that.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        if self.listening {
            return Ok(());
        }
        self.listening = true;
        let (mut signals, latest) =
            (signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?, Arc::clone(&self.latest));
        thread::Builder::new().name("signals".into()).spawn(move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                match first {
                    Some(first) if first.elapsed() > AT_ONCE => exit(SHELL + signal),
                    Some(_) => {}
                    None => {
                        first = Some(Instant::now());
                        latest.store(usize::try_from(signal).unwrap_or_default(), Ordering::Relaxed);
                    }
                }
            }
        })?;
        Ok(())
    }

    /// Whether one came.
    pub(crate) fn came(&self) -> bool {
        self.latest.load(Ordering::Relaxed) != 0
    }

    /// What a process ends with that one of them ended; 1 where none came.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.latest.load(Ordering::Relaxed) {
            0 => 1,
            signal => u8::try_from(SHELL as usize + signal).unwrap_or(1),
        }
    }
}
