//! What a row sees of a lane, and the runs of slots that a block of rows walks through.

use super::block::RUN;

/// What one row sees of one lane: the first `sinks` slots and the slots `from..to`.
///
/// `sinks <= from <= to <= lane.len`. `from == sinks` means no gap, `sinks` may be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Band {
    /// Slots seen from the first on.
    pub sinks: usize,
    /// First slot of the window.
    pub from: usize,
    /// End of the window.
    pub to: usize,
}

impl Band {
    /// The first `to` slots.
    pub const fn first(to: usize) -> Band {
        Band { sinks: 0, from: 0, to }
    }

    /// Slots seen.
    pub fn slots(self) -> usize {
        self.sinks + (self.to - self.from)
    }

    /// Whether the numbers are in order.
    pub(super) fn is_ordered(self) -> bool {
        self.sinks <= self.from && self.from <= self.to
    }

    /// The same slots with as few parts as can be: one query reads sinks and window that touch as one window.
    pub(super) fn joined(self) -> Band {
        if self.sinks == self.from { Band::first(self.to) } else { self }
    }

    /// The slots of one part, `from..to`.
    #[inline(always)]
    pub(super) fn part(self, part: Part) -> (usize, usize) {
        match part {
            Part::Sinks => (0, self.sinks),
            Part::Window => (self.from, self.to),
        }
    }

    /// Whether a run holds slots that are seen.
    #[inline(always)]
    pub(super) fn sees(self, run: Run) -> bool {
        let (from, to) = self.part(run.part);
        from.max(run.index * RUN) < to.min((run.index + 1) * RUN)
    }
}

/// The two parts of a band. Each is softened by itself; their states merge like those of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Sinks,
    Window,
}

/// The slots `index * RUN..(index + 1) * RUN`, as one part of the bands sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub part: Part,
    pub index: usize,
}

/// The runs that some rows see, in the order in which they merge: those of the sinks, then those of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runs {
    sinks: usize,
    first: usize,
    end: usize,
}

impl Runs {
    /// The runs that the bands see.
    pub fn of(bands: impl Iterator<Item = Band>) -> Runs {
        let (mut sinks, mut from, mut to) = (0, usize::MAX, 0);
        for band in bands {
            sinks = sinks.max(band.sinks);
            if band.from < band.to {
                (from, to) = (from.min(band.from), to.max(band.to));
            }
        }
        let end = to.div_ceil(RUN);
        Runs { sinks: sinks.div_ceil(RUN), first: (from / RUN).min(end), end }
    }

    /// How many there are; at least 1, so that rows which see nothing are written too.
    pub fn count(&self) -> usize {
        (self.sinks + (self.end - self.first)).max(1)
    }

    /// Runs of slots that are seen, by whichever part, counted once.
    pub fn places(&self) -> usize {
        self.sinks + self.end.saturating_sub(self.first.max(self.sinks))
    }

    /// Index of run of slots `i` of [`places`](Runs::places).
    pub fn place(&self, i: usize) -> Option<usize> {
        let place = if i < self.sinks { i } else { i - self.sinks + self.first.max(self.sinks) };
        (i < self.places()).then_some(place)
    }

    /// Run `i` of [`count`](Runs::count).
    pub fn get(&self, i: usize) -> Run {
        match i.checked_sub(self.sinks) {
            None => Run { part: Part::Sinks, index: i },
            Some(i) => Run { part: Part::Window, index: self.first + i },
        }
    }
}
