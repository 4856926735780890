//! Ctrl-C and a request to end: the first is taken up after the step, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What a shell adds to a signal's number to make an exit code of it.
const SHELL: i32 = 128;

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
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds `came` unset, and whichever is the second ends the process.
            let came = Arc::new(AtomicBool::new(false));
            flag::register_conditional_shutdown(signal, SHELL + signal, Arc::clone(&came))?;
            flag::register(signal, came)?;
            flag::register_usize(signal, Arc::clone(&self.latest), signal as usize)?;
        }
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
