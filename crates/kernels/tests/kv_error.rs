//! How far each storage format is from what was written, on normal numbers, on heavy tails and on keys some of whose
//! channels are large. `cargo test -p roofline-kernels --release --test kv_error -- --nocapture` prints the table of
//! `docs/kv-formats.md`.

#![allow(clippy::unwrap_used)] // helpers of tests may stop them

mod common_kv;

use common_kv::Noise;
use roofline_kernels::{KernelTable, KvFormat, PageLayout, PageRef, Rows};

const SLOTS: usize = 64;
const HEAD_DIM: usize = 128;
const PAGES: usize = 32;

/// A normal number, from twelve even ones.
fn normal(noise: &mut Noise) -> f32 {
    (0..12).map(|_| noise.next()).sum::<f32>() / 2.0
}

/// Student's t with three degrees of freedom: its fourth moment is infinite.
fn heavy(noise: &mut Noise) -> f32 {
    let square = (0..3).map(|_| normal(noise).powi(2)).sum::<f32>();
    normal(noise) / (square / 3.0).sqrt()
}

/// A page of numbers `(slots, head_dim)`.
fn page(kind: &str, noise: &mut Noise) -> Vec<f32> {
    // Every sixteenth channel is eight times as large, as keys of trained models have them.
    let scale = |channel: usize| if kind == "channels" && channel % 16 == 5 { 8.0 } else { 1.0 };
    (0..SLOTS * HEAD_DIM)
        .map(|i| scale(i % HEAD_DIM) * if kind == "heavy" { heavy(noise) } else { normal(noise) })
        .collect()
}

/// Root mean square error over root mean square, and largest error over root mean square, of keys and of values.
fn errors(format: KvFormat, kind: &str) -> [[f64; 2]; 2] {
    let layout = PageLayout::new(format, SLOTS, HEAD_DIM).unwrap();
    let table = KernelTable::detect(None).unwrap();
    let (mut noise, mut sums, mut most, mut size) = (Noise(77), [0.0; 2], [0.0f64; 2], 0.0);
    let (mut hot, mut coded) = (vec![0; layout.page_bytes()], vec![0; layout.sealed_page_bytes()]);
    for _ in 0..PAGES {
        let x = page(kind, &mut noise);
        let rows = Rows { data: &x, stride: HEAD_DIM };
        layout.write_slots(&table, &mut hot, 0, SLOTS, rows, rows);
        layout.seal(&hot, &mut coded);
        let page = if layout.seals() { PageRef::Sealed(&coded) } else { PageRef::Hot(&hot) };
        let mut back = vec![0.0; HEAD_DIM];
        for slot in 0..SLOTS {
            let x = &x[slot * HEAD_DIM..][..HEAD_DIM];
            size += x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            for half in 0..2 {
                match half {
                    0 => layout.read_key(page, slot, &mut back),
                    _ => layout.read_value(page, slot, &mut back),
                }
                for (x, back) in x.iter().zip(&back) {
                    let error = f64::from(*x) - f64::from(*back);
                    sums[half] += error * error;
                    most[half] = most[half].max(error.abs());
                }
            }
        }
    }
    let rms = (size / (PAGES * SLOTS * HEAD_DIM) as f64).sqrt();
    [0, 1].map(|half| [(sums[half] / size).sqrt(), most[half] / rms])
}

/// Bits of a key and of a value once sealed.
fn bits(format: KvFormat) -> [f64; 2] {
    let of = |key, value| {
        let layout = PageLayout::with_formats(key, value, SLOTS, HEAD_DIM).unwrap();
        8.0 * layout.sealed_page_bytes() as f64 / (SLOTS * HEAD_DIM) as f64
    };
    [of(format, KvFormat::F32) - 32.0, of(KvFormat::F32, format) - 32.0]
}

#[test]
fn errors_are_what_the_bits_buy() {
    let mut all = Vec::new();
    println!(
        "| format | bits K, V | normal K, V | heavy tails K, V | large channels K, V | largest, heavy tails |"
    );
    println!("|---|---|---|---|---|---|");
    for format in KvFormat::ALL {
        let [normal, heavy, channels] = ["normal", "heavy", "channels"].map(|kind| errors(format, kind));
        let [key, value] = bits(format);
        let pair = |e: [[f64; 2]; 2]| format!("{:.4} % {:.4} %", 100.0 * e[0][0], 100.0 * e[1][0]);
        println!(
            "| {format} | {key:.3} {value:.3} | {} | {} | {} | {:.2e} {:.2e} |",
            pair(normal),
            pair(heavy),
            pair(channels),
            heavy[0][1],
            heavy[1][1]
        );
        all.push((format, [normal, heavy, channels]));
    }
    let of = |format: KvFormat| all.iter().find(|(f, _)| *f == format).unwrap().1;
    // Equal steps of a range of n units have an error of n / (steps · √12).
    let narrower = [
        (KvFormat::F16, KvFormat::I8),
        (KvFormat::Q8_0, KvFormat::I8),
        (KvFormat::I8, KvFormat::Kivi4),
        (KvFormat::KvQuant4, KvFormat::KvQuant3),
        (KvFormat::Kivi4, KvFormat::Kivi2),
    ];
    for (wide, narrow) in narrower {
        for kind in 0..2 {
            for half in 0..2 {
                assert!(of(wide)[kind][half][0] < of(narrow)[kind][half][0], "{wide} {narrow} {kind} {half}");
            }
        }
    }
    // One scale per slot suffers from large channels, one per channel does not.
    assert!(of(KvFormat::I8)[2][0][0] > 0.8 * of(KvFormat::I8)[0][0][0]);
    let kivi = of(KvFormat::Kivi4);
    assert!(kivi[2][0][0] < 1.2 * kivi[0][0][0] && kivi[2][1][0] > kivi[2][0][0]);
}
