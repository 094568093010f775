//! Ctrl-C: the first asks the command to stop where it is safe, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// Whether the user asked to stop.
#[derive(Debug, Clone)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over Ctrl-C (and termination) for the rest of the program; once per program.
    pub fn install() -> Result<Interrupt, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        let handler = Arc::clone(&asked);
        ctrlc::set_handler(move || {
            if handler.swap(true, Ordering::AcqRel) {
                std::process::exit(130);
            }
        })
        .map_err(|e| Failure::new(format_args!("cannot listen for Ctrl-C: {e}")))?;
        Ok(Interrupt { asked })
    }

    /// What a generation watches.
    pub fn flag(&self) -> &AtomicBool {
        &self.asked
    }

    /// From here on the next press ends the program at once: nothing is running that could stop.
    pub fn idle(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// From here on the next press asks the work to stop.
    pub fn busy(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// Whether it was pressed.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}
