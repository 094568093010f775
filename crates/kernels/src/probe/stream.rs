//! Reading and writing memory as fast as it goes.

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};

use super::race::passes_per_second;
use super::{Plan, ProbeError, Samples};
use crate::aligned::AlignedBytes;

/// One cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u64; 8]);

const LINE_BYTES: usize = size_of::<Line>();
/// Buffers are whole multiples of this many lines, so that no loop has a remainder.
pub(super) const LINES_PER_TURN: usize = 64;

/// The memory a streaming probe walks over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that each thread owns; rounded up to whole 4 KiB, above 8 MiB to whole 8 MiB.
    pub bytes_per_thread: usize,
}

/// Lines of one pass. A large buffer is walked over in several passes, which lets a sample be short: on a shared
/// machine only short samples have a chance to fall between two visits of the neighbours.
const SEGMENT: usize = (8 << 20) / LINE_BYTES;

impl Memory {
    /// Lines of a segment, and segments of a thread.
    fn segments(self) -> (usize, usize) {
        let lines = self.bytes_per_thread.div_ceil(LINE_BYTES);
        if lines <= SEGMENT {
            (lines.div_ceil(LINES_PER_TURN) * LINES_PER_TURN, 1)
        } else {
            (SEGMENT, lines.div_ceil(SEGMENT))
        }
    }
}

/// What a thread walks over, and where it goes on.
struct Walk<'a> {
    buffer: &'a mut [Line],
    segment: usize, // lines
    next: usize,    // segment
}

impl Walk<'_> {
    fn advance(&mut self) -> &mut [Line] {
        let start = self.next * self.segment;
        self.next = if start + 2 * self.segment > self.buffer.len() { 0 } else { self.next + 1 };
        &mut self.buffer[start..start + self.segment]
    }
}

/// A loop over lines, with the instruction it is made of.
pub(super) struct Loop<F> {
    pub(super) name: &'static str,
    pub(super) run: F,
}

pub(super) type ReadLoop = Loop<fn(&[Line]) -> u64>;
pub(super) type WriteLoop = Loop<fn(&mut [Line], u64)>;

/// Names of the ways [`read`] knows to walk over a buffer on this processor. Which is fastest differs between
/// processors and between memory and caches.
pub fn read_patterns() -> Vec<&'static str> {
    read_loops().iter().map(|l| l.name).collect()
}

/// Bytes per second read by `plan.threads` threads, each walking over its own `memory`; one [`Samples`] per pattern.
///
/// # Errors
/// [`ProbeError::Memory`] when the buffers cannot be had, [`ProbeError::Thread`] when a thread cannot.
pub fn read(plan: Plan, memory: Memory) -> Result<Vec<Samples>, ProbeError> {
    let loops = read_loops();
    let names: Vec<&'static str> = loops.iter().map(|l| l.name).collect();
    sample(plan, memory, &names, |lines, chosen, _| {
        black_box((loops[chosen].run)(black_box(lines)));
    })
}

/// Bytes per second written by `plan.threads` threads, each into its own `memory`, past the caches where the
/// processor has an instruction for that.
///
/// # Errors
/// As [`read`].
pub fn write(plan: Plan, memory: Memory) -> Result<Vec<Samples>, ProbeError> {
    let write = write_loop();
    sample(plan, memory, &[write.name], |lines, _, pass| {
        (write.run)(lines, pass);
        black_box(lines);
    })
}

fn sample(
    plan: Plan,
    memory: Memory,
    names: &[&'static str],
    pass: impl Fn(&mut [Line], usize, u64) + Sync,
) -> Result<Vec<Samples>, ProbeError> {
    let (segment, segments) = memory.segments();
    let bytes = segment.saturating_mul(segments).saturating_mul(LINE_BYTES);
    if bytes == 0 {
        return Err(ProbeError::Empty { threads: plan.threads, repeats: plan.repeats, bytes: 0 });
    }
    // The memory of packed matrices, so that pages are as large as theirs.
    let mut reserved = (0..plan.threads)
        .map(|_| AlignedBytes::zeroed_on_large_pages(bytes).ok_or(ProbeError::Memory { bytes }))
        .collect::<Result<Vec<_>, _>>()?;
    let buffers: Vec<&mut [Line]> =
        reserved.iter_mut().map(|buffer| bytemuck::cast_slice_mut(buffer.as_mut_slice())).collect();
    let buffers = Mutex::new(buffers);
    let prepare = |thread: usize| {
        let taken = buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = taken.unwrap_or_default();
        // Filled by the thread that reads it: memory lies near the core that touches it first.
        for (i, line) in buffer.iter_mut().enumerate() {
            *line = Line([(i ^ thread) as u64; 8]);
        }
        Walk { buffer, segment, next: 0 }
    };
    let rates = passes_per_second(plan, names.len(), prepare, |walk, chosen, passes| {
        for i in 0..passes {
            pass(walk.advance(), chosen, i);
        }
    })?;
    let work = plan.threads as f64 * (segment * LINE_BYTES) as f64;
    let of_loop = |(name, rates): (&&'static str, Vec<f64>)| Samples {
        instruction: name,
        threads: plan.threads,
        rates: rates.iter().map(|rate| rate * work).collect(),
    };
    Ok(names.iter().zip(rates).map(of_loop).collect())
}

fn read_loops() -> Vec<ReadLoop> {
    #[cfg(target_arch = "x86_64")]
    if let Some(loops) = super::x86::read_loops() {
        return loops;
    }
    vec![Loop { name: "portable 1 stream", run: read_portable }]
}

fn write_loop() -> WriteLoop {
    #[cfg(target_arch = "x86_64")]
    if let Some(found) = super::x86::write_loop() {
        return found;
    }
    Loop { name: "portable store", run: |lines, value| lines.fill(Line([value; 8])) }
}

/// The compiler's vectors: 16 bytes on baseline x86-64 and on AArch64.
fn read_portable(lines: &[Line]) -> u64 {
    let mut seen = [[0u64; 8]; 4];
    for turn in lines.chunks_exact(4) {
        for (seen, line) in seen.iter_mut().zip(turn) {
            for (s, word) in seen.iter_mut().zip(&line.0) {
                *s |= word;
            }
        }
    }
    seen.iter().flatten().fold(0, |all, s| all | s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn counted(lines: usize) -> Vec<Line> {
        (0..lines as u64).map(|i| Line(std::array::from_fn(|j| 1 << ((i * 8 + j as u64) % 64)))).collect()
    }

    /// A loop that skipped a line would miss the one word that carries the bit.
    #[test]
    fn every_pattern_reads_every_word() {
        let loops = read_loops();
        assert!(!loops.is_empty());
        for lines in [LINES_PER_TURN, 3 * LINES_PER_TURN] {
            assert_eq!(read_portable(&counted(lines)), u64::MAX);
            for at in 0..lines * 8 {
                let mut buffer = vec![Line([0; 8]); lines];
                buffer[at / 8].0[at % 8] = 1 << (at % 64);
                for l in &loops {
                    assert_eq!((l.run)(&buffer), 1 << (at % 64), "{} word {at} of {lines} lines", l.name);
                }
            }
        }
    }

    #[test]
    fn writes_every_word() {
        for lines in [LINES_PER_TURN, 3 * LINES_PER_TURN] {
            let mut buffer = counted(lines);
            (write_loop().run)(&mut buffer, 0x0123_4567_89ab_cdef);
            assert!(buffer.iter().all(|line| line.0 == [0x0123_4567_89ab_cdef; 8]));
        }
    }

    #[test]
    fn samples_are_positive_and_named() {
        let plan = Plan { threads: 2, repeats: 3, sample: Duration::from_micros(100) };
        let memory = Memory { bytes_per_thread: 5000 };
        assert_eq!(memory.segments(), (2 * LINES_PER_TURN, 1));
        let names = read_patterns();
        let reads = read(plan, memory).unwrap();
        assert_eq!(reads.iter().map(|s| s.instruction).collect::<Vec<_>>(), names);
        for s in reads.iter().chain(&write(plan, memory).unwrap()) {
            assert_eq!((s.threads, s.rates.len()), (2, 3));
            assert!(s.rates.iter().all(|r| r.is_finite() && *r > 0.0), "{s:?}");
        }
    }

    #[test]
    fn a_walk_visits_every_segment_in_turn() {
        let (segment, segments) = Memory { bytes_per_thread: (20 << 20) + 1 }.segments();
        assert_eq!((segment, segments), (SEGMENT, 3));
        let mut buffer: Vec<Line> = (0..12).map(|i| Line([i; 8])).collect();
        let mut walk = Walk { buffer: &mut buffer, segment: 4, next: 0 };
        let firsts: Vec<u64> = (0..5).map(|_| walk.advance()[0].0[0]).collect();
        assert_eq!(firsts, [0, 4, 8, 0, 4]);
    }

    #[test]
    fn absurd_sizes_are_errors() {
        let plan = Plan { threads: 1, repeats: 1, sample: Duration::from_micros(1) };
        assert!(matches!(read(plan, Memory { bytes_per_thread: 0 }), Err(ProbeError::Empty { .. })));
        let memory = Memory { bytes_per_thread: usize::MAX };
        assert!(matches!(read(plan, memory), Err(ProbeError::Memory { .. })));
    }
}
