//! Pages: what is written is read, rounded as the format says, and nothing else is touched.

#![allow(clippy::unwrap_used)] // helpers of tests may stop them

mod common_kv;

use common_kv::Noise;
use half::{bf16, f16};
use proptest::prelude::*;
use proptest::sample::select;
use roofline_kernels::{Isa, KernelError, KernelTable, KvFormat, PageLayout, PageRef, Rows};
use roofline_weights::Format;
use roofline_weights::blocks::{decode, encode};

/// What a row is read as, from the definition of its format.
fn rounded(format: KvFormat, row: &[f32]) -> Vec<f32> {
    match format.hot() {
        KvFormat::F32 => row.to_vec(),
        KvFormat::F16 => row.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
        KvFormat::Bf16 => row.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
        KvFormat::I8 => {
            let max = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let scale = f16::from_f32(max / 127.0).to_f32();
            row.iter()
                .map(|x| if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even() * scale })
                .collect()
        }
        _ => {
            let (mut bytes, mut out) = (Vec::new(), vec![0.0; row.len()]);
            encode(Format::Q8_0, row, None, &mut bytes).unwrap();
            decode(Format::Q8_0, &bytes, &mut out).unwrap();
            out
        }
    }
}

/// A head_dim that both formats can store.
fn fitting(head_dim: usize, formats: [KvFormat; 2]) -> usize {
    let blocks = formats.iter().any(|format| *format == KvFormat::Q8_0 || format.seals());
    if blocks { head_dim.next_multiple_of(32) } else { head_dim }
}

/// A model of a page: a key and a value per slot.
type Slots = Vec<(Vec<f32>, Vec<f32>)>;

fn same(layout: &PageLayout, page: &[u8], slots: &Slots) {
    let (mut k, mut v) = (vec![0.0; layout.head_dim()], vec![0.0; layout.head_dim()]);
    for (slot, want) in slots.iter().enumerate() {
        layout.read_key(page, slot, &mut k);
        layout.read_value(page, slot, &mut v);
        assert_eq!((&k, &v), (&want.0, &want.1), "slot {slot}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_page_is_a_list_of_slots(
        key in select(KvFormat::ALL.to_vec()), value in select(KvFormat::ALL.to_vec()), power in 4u32..9, head_dim in 1usize..70,
        steps in prop::collection::vec((0u8..3, any::<u16>(), any::<u16>(), -1e3f32..1e3), 1..30),
    ) {
        let head_dim = fitting(head_dim, [key, value]);
        let least = if key.seals() || value.seals() { 32 } else { 16 };
        let layout = PageLayout::with_formats(key, value, least.max(1 << power), head_dim).unwrap();
        let n = layout.slots();
        prop_assert_eq!(layout.page_bytes(), n * (key.row_bytes(head_dim) + value.row_bytes(head_dim)));
        let mut page = vec![0; layout.page_bytes()];
        let mut slots: Slots = vec![(vec![0.0; head_dim], vec![0.0; head_dim]); n];
        for (step, a, b, x) in steps {
            let (a, b) = (a as usize % n, b as usize % n);
            match step {
                0 => {
                    let k: Vec<f32> = (0..head_dim).map(|i| x * (1.0 + i as f32 * 0.37)).collect();
                    let v: Vec<f32> = k.iter().map(|k| -0.1 * k).collect();
                    layout.write_slot(&mut page, a, &k, &v);
                    slots[a].0 = rounded(key, &k);
                    slots[a].1 = rounded(value, &v);
                }
                1 => {
                    layout.copy_slot_within(&mut page, a, b);
                    slots[b] = slots[a].clone();
                }
                _ => {
                    let source = page.clone();
                    layout.copy_slot(&source, a, &mut page, b);
                    slots[b] = slots[a].clone();
                }
            }
        }
        same(&layout, &page, &slots);
    }

    #[test]
    fn many_slots_at_once_are_as_one_by_one(
        format in select(KvFormat::ALL.to_vec()), heads in 1usize..4, head in 0usize..4, head_dim in 1usize..140, first in 0usize..64,
        count in 0usize..64, magnitude in select(vec![1.0f32, 3e-6, 4e4, 1e30]),
    ) {
        let (head, count) = (head % heads, count.min(64 - first));
        let head_dim = fitting(head_dim, [format, format]);
        let layout = PageLayout::new(format, 64, head_dim).unwrap();
        let stride = heads * head_dim;
        let k: Vec<f32> = (0..count * stride).map(|i| (i as f32 * 0.7).sin() * magnitude).collect();
        let v: Vec<f32> = (0..count * stride).map(|i| (i as f32 * 0.3).cos()).collect();
        let mut one_by_one = vec![7; layout.page_bytes()];
        for i in 0..count {
            let at = i * stride + head * head_dim;
            layout.write_slot(&mut one_by_one, first + i, &k[at..at + head_dim], &v[at..at + head_dim]);
        }
        let of_head = |data| Rows { data, stride };
        let at = (head * head_dim).min(k.len());
        for isa in Isa::available() {
            let table = KernelTable::detect(Some(isa)).unwrap();
            let mut at_once = vec![7; layout.page_bytes()];
            layout.write_slots(&table, &mut at_once, first, count, of_head(&k[at..]), of_head(&v[at..]));
            prop_assert!(at_once == one_by_one, "{} {}", format.name(), isa);
        }
    }
}

/// What a row comes back as, as key and as value.
fn through(format: KvFormat, row: &[f32]) -> Vec<f32> {
    let layout = PageLayout::new(format, 16, row.len()).unwrap();
    let mut page = vec![0xff; layout.page_bytes()];
    layout.write_slot(&mut page, 5, row, row);
    let (mut k, mut v) = (vec![0.0; row.len()], vec![0.0; row.len()]);
    layout.read_key(&page, 5, &mut k);
    layout.read_value(&page, 5, &mut v);
    assert_eq!(
        k.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
        v.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    );
    k
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Half a scale, where the scale is the largest magnitude over 127, as f16 holds it: half of its smallest step more.
    #[test]
    fn eight_bits_are_off_by_half_a_scale_at_most(
        exponent in -46i32..22, row in prop::collection::vec(-1f32..1.0, 1..200),
    ) {
        let row: Vec<f32> = row.iter().map(|x| x * (exponent as f32).exp2()).collect();
        let max = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let half = (max / 127.0) * (0.5 + 1.0 / 2048.0) + 3.0e-8;
        for (x, back) in row.iter().zip(through(KvFormat::I8, &row)) {
            prop_assert!((x - back).abs() <= half, "{x} came back as {back}, scale {}", max / 127.0);
        }
    }

    #[test]
    fn blocks_are_those_of_gguf_bit_for_bit(
        bits in prop::collection::vec(any::<u32>(), 64), exponent in -60i32..22, wild in any::<bool>(),
    ) {
        let row: Vec<f32> = bits.iter().map(|bits| match f32::from_bits(*bits) {
            x if wild && x.is_finite() && x.abs() < 8e6 => x,
            _ => (*bits as f32 / u32::MAX as f32 - 0.5) * (exponent as f32).exp2(),
        }).collect();
        prop_assert_eq!(through(KvFormat::Q8_0, &row), rounded(KvFormat::Q8_0, &row));
    }
}

#[test]
fn ties_round_as_each_format_says() {
    let mut row = vec![0.0; 32];
    row[..6].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]); // the scale is 1
    assert_eq!(through(KvFormat::I8, &row)[..6], [127.0, 0.0, 2.0, 2.0, 0.0, -2.0]);
    assert_eq!(through(KvFormat::Q8_0, &row)[..6], [127.0, 1.0, 2.0, 3.0, -1.0, -2.0]);
}

#[test]
fn zeros_stay_and_what_is_no_number_is_read_as_none() {
    for format in [KvFormat::I8, KvFormat::Q8_0] {
        assert_eq!(through(format, &[0.0; 64]), [0.0; 64]);
        assert_eq!(through(format, &[1e-42; 64]), [0.0; 64], "a scale below any f16");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 9e6, f32::MAX] {
            let mut row = vec![1.0; 64];
            row[3] = bad;
            let back = through(format, &row);
            assert!(back[..32].iter().all(|x| x.is_nan()), "{format}: {bad}");
            assert!(back[32..].iter().all(|x| x.is_nan() == (format == KvFormat::I8)), "{format}: {bad}");
        }
    }
}

#[test]
fn eight_bits_cost_what_they_cost() {
    for (format, head_dim, slot_bytes) in [
        (KvFormat::I8, 128, 260), // 8.125 bits
        (KvFormat::I8, 5, 14),
        (KvFormat::Q8_0, 128, 272), // 8.5 bits
        (KvFormat::Q8_0, 32, 68),
    ] {
        let layout = PageLayout::new(format, 64, head_dim).unwrap();
        assert_eq!((layout.slot_bytes(), layout.page_bytes()), (slot_bytes, 64 * slot_bytes));
    }
    let mixed = PageLayout::with_formats(KvFormat::I8, KvFormat::F16, 64, 80).unwrap();
    assert_eq!(mixed.slot_bytes(), 82 + 160);
}

#[test]
fn blocks_that_a_head_does_not_fill_are_refused_with_the_way_out() {
    for formats in [[KvFormat::Q8_0, KvFormat::F16], [KvFormat::F16, KvFormat::Q8_0]] {
        let error = PageLayout::with_formats(formats[0], formats[1], 64, 80).unwrap_err();
        assert!(matches!(error, KernelError::PartialKvBlock { format: KvFormat::Q8_0, head_dim: 80 }));
        assert!(error.to_string().contains("i8 takes any"), "{error}");
    }
    assert!(PageLayout::new(KvFormat::I8, 64, 80).is_ok());
}

/// All numbers of a page, key and value of every slot after one another.
fn read_page<'a>(layout: &PageLayout, page: impl Into<PageRef<'a>>) -> [Vec<f32>; 2] {
    let (page, d) = (page.into(), layout.head_dim());
    let mut all = [vec![0.0; layout.slots() * d], vec![0.0; layout.slots() * d]];
    for slot in 0..layout.slots() {
        layout.read_key(page, slot, &mut all[0][slot * d..][..d]);
        layout.read_value(page, slot, &mut all[1][slot * d..][..d]);
    }
    all
}

/// A page of such keys and values: as it is before it is sealed, and after.
fn sealed(layout: &PageLayout, k: &[f32], v: &[f32]) -> [[Vec<f32>; 2]; 2] {
    let stride = layout.head_dim();
    let mut hot = vec![0xff; layout.page_bytes()];
    let table = KernelTable::detect(None).unwrap();
    layout.write_slots(
        &table,
        &mut hot,
        0,
        layout.slots(),
        Rows { data: k, stride },
        Rows { data: v, stride },
    );
    let mut coded = vec![0xff; layout.sealed_page_bytes()];
    layout.seal(&hot, &mut coded);
    [read_page(layout, &hot), read_page(layout, PageRef::Sealed(&coded))]
}

/// Ranges of `groups` of numbers: `of(number)` is the group of a number.
fn ranges(x: &[f32], groups: usize, of: impl Fn(usize) -> usize) -> Vec<[f32; 2]> {
    let mut ranges = vec![[f32::INFINITY, f32::NEG_INFINITY]; groups];
    for (i, x) in x.iter().enumerate() {
        let range = &mut ranges[of(i)];
        *range = [range[0].min(*x), range[1].max(*x)];
    }
    ranges
}

const KIVI: [(KvFormat, f32); 2] = [(KvFormat::Kivi4, 15.0), (KvFormat::Kivi2, 3.0)];
const KV_QUANT: [(KvFormat, f32); 2] =
    [(KvFormat::KvQuant4, 45.0 / 512.0), (KvFormat::KvQuant3, 78.0 / 512.0)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// KIVI: half a step of the group, which is 32 slots of a channel for keys and 32 channels of a slot for values.
    #[test]
    fn kivi_is_off_by_half_a_step_of_its_group(
        power in 5u32..8, blocks in 1usize..4, seed in any::<u64>(), exponent in -20i32..12, heavy in any::<bool>(),
    ) {
        let (slots, d) = (1usize << power, 32 * blocks);
        let mut noise = Noise(seed);
        let mut number = || {
            let x = noise.next();
            (if heavy { x * x * x * x * x } else { x } + 0.3) * (exponent as f32).exp2()
        };
        let k: Vec<f32> = (0..slots * d).map(|_| number()).collect();
        let v: Vec<f32> = (0..slots * d).map(|_| number()).collect();
        for (format, steps) in KIVI {
            let layout = PageLayout::new(format, slots, d).unwrap();
            let [hot, coded] = sealed(&layout, &k, &v);
            let key_group = |i: usize| i / d / 32 * d + i % d;
            let value_group = |i: usize| i / 32;
            for (half, group) in [(0, &key_group as &dyn Fn(usize) -> usize), (1, &value_group)] {
                let ranges = ranges(&hot[half], slots * d / 32, group);
                for i in 0..slots * d {
                    let [low, high] = ranges[group(i)];
                    // The scale is rounded to f16: by 2^-11, or by half its smallest step, times the code.
                    let step = (high - low) / steps;
                    let bound = step / 2.0 + (high - low) / 2048.0 + steps * 3.0e-8 + high.abs().max(low.abs()) * 1e-6;
                    let (x, back) = (hot[half][i], coded[half][i]);
                    prop_assert!((x - back).abs() <= bound, "{format} {half} {i}: {x} {back} in {low}..{high}");
                }
            }
        }
    }

    /// KVQuant: half the widest gap between levels, in half ranges of a channel (keys) or a slot (values), outliers in
    /// f16 what is missing of them.
    #[test]
    fn kvquant_is_off_by_half_a_gap_of_its_row(
        power in 5u32..8, blocks in 1usize..4, seed in any::<u64>(), exponent in -12i32..10, heavy in any::<bool>(),
    ) {
        let (slots, d) = (1usize << power, 32 * blocks);
        let mut noise = Noise(seed);
        let mut number = || {
            let x = noise.next();
            (if heavy { x * x * x * x * x } else { x } + 0.3) * (exponent as f32).exp2()
        };
        let k: Vec<f32> = (0..slots * d).map(|_| number()).collect();
        let v: Vec<f32> = (0..slots * d).map(|_| number()).collect();
        for (format, half_gap) in KV_QUANT {
            let layout = PageLayout::new(format, slots, d).unwrap();
            let [hot, coded] = sealed(&layout, &k, &v);
            let (key_group, value_group) = (|i: usize| i % d, |i: usize| i / d);
            for (half, count, group) in [(0, d, &key_group as &dyn Fn(usize) -> usize), (1, slots, &value_group)] {
                let ranges = ranges(&hot[half], count, group);
                for i in 0..slots * d {
                    let [low, high] = ranges[group(i)];
                    let gap = if format == KvFormat::KvQuant4 { half_gap } else { half_gap.max(34.0 / 256.0) };
                    let bound = (high - low) / 2.0 * gap + (high - low).max(high.abs()).max(low.abs()) / 500.0 + 1e-7;
                    let (x, back) = (hot[half][i], coded[half][i]);
                    prop_assert!((x - back).abs() <= bound, "{format} {half} {i}: {x} {back} in {low}..{high}");
                }
            }
        }
    }

    /// Any bytes are numbers or none, and whatever they are, they are read within the page.
    #[test]
    fn any_bytes_of_a_sealed_page_are_read_without_a_panic(
        key in select(KvFormat::ALL.to_vec()), value in select(KvFormat::ALL.to_vec()), seed in any::<u64>(),
    ) {
        let layout = PageLayout::with_formats(key, value, 32, 64).unwrap();
        let mut noise = Noise(seed);
        let bytes: Vec<u8> = (0..layout.sealed_page_bytes()).map(|_| (noise.next() * 128.0) as i32 as u8).collect();
        read_page(&layout, PageRef::Sealed(&bytes));
    }
}

#[test]
fn the_fixture_of_kivi() {
    // Group of a channel for keys, of a slot for values; with 2 bits the scale is 1 and the codes are 0, 1, 2, 3.
    let layout = PageLayout::new(KvFormat::Kivi2, 32, 32).unwrap();
    let four = [-1.0, 0.2, 0.9, 2.0];
    let k: Vec<f32> = (0..32 * 32).map(|i| four[i / 32 % 4]).collect();
    let v: Vec<f32> = (0..32 * 32).map(|i| four[i % 4]).collect();
    let [_, [keys, values]] = sealed(&layout, &k, &v);
    let want = [-1.0, 0.0, 1.0, 2.0];
    assert!(keys.iter().enumerate().all(|(i, x)| *x == want[i / 32 % 4]), "{:?}", &keys[..4]);
    assert!(values.iter().enumerate().all(|(i, x)| *x == want[i % 4]), "{:?}", &values[..4]);
}

#[test]
fn outliers_do_not_widen_the_range_of_their_row() {
    let layout = PageLayout::new(KvFormat::KvQuant3, 64, 64).unwrap();
    let mut noise = Noise(9);
    let mut k: Vec<f32> = (0..64 * 64).map(|_| noise.next()).collect();
    for i in 0..20 {
        k[i * 197] = if i % 2 == 0 { 300.0 + i as f32 } else { -200.0 - i as f32 };
    }
    let [hot, coded] = sealed(&layout, &k, &k);
    for half in 0..2 {
        for i in 0..64 * 64 {
            let (x, back) = (hot[half][i], coded[half][i]);
            let bound = if x.abs() > 1.0 { 0.13 } else { 0.16 }; // f16 of 300, and half a gap of a range of 2
            assert!((x - back).abs() <= bound, "{half} {i}: {x} {back}");
        }
    }
}

#[test]
fn what_is_no_number_is_read_as_none_after_sealing_too() {
    for format in KvFormat::ALL.into_iter().filter(|format| format.seals()) {
        let layout = PageLayout::new(format, 32, 32).unwrap();
        let mut k = vec![0.5; 32 * 32];
        (k[5], k[40]) = (f32::NAN, 1e6); // the second is infinite in f16
        let [_, [keys, values]] = sealed(&layout, &k, &k);
        for x in [&keys, &values] {
            assert!(x[5].is_nan() && x[40].is_nan(), "{format}");
            assert!(x[500] == 0.5, "{format}: {}", x[500]);
        }
    }
}

#[test]
fn sealed_pages_cost_what_they_cost() {
    for (format, head_dim, bytes) in [
        (KvFormat::Kivi4, 128, 64 * 160), // 5 bits a number
        (KvFormat::Kivi2, 128, 64 * 96),  // 3 bits
        (KvFormat::KvQuant4, 128, 2 * 4096 + 128 * 4 + 64 * 4 + 2 * 81 * 4),
        (KvFormat::KvQuant3, 128, 2 * 3072 + 128 * 4 + 64 * 4 + 2 * 81 * 4),
        (KvFormat::I8, 128, 64 * 260),
    ] {
        let layout = PageLayout::new(format, 64, head_dim).unwrap();
        assert_eq!(layout.sealed_page_bytes(), bytes, "{format}");
    }
    let mixed = PageLayout::with_formats(KvFormat::Kivi2, KvFormat::I8, 64, 128).unwrap();
    assert_eq!(mixed.sealed_page_bytes(), 64 * 48 + 64 * 130);
    assert_eq!(mixed.page_bytes(), 64 * 256 + 64 * 130);
}

#[test]
fn a_half_that_does_not_seal_stays_as_it_was() {
    let mut noise = Noise(4);
    let x: Vec<f32> = (0..64 * 64).map(|_| noise.next()).collect();
    for (key, value, same) in [(KvFormat::Kivi4, KvFormat::I8, 1), (KvFormat::Bf16, KvFormat::KvQuant3, 0)] {
        let layout = PageLayout::with_formats(key, value, 64, 64).unwrap();
        let [hot, coded] = sealed(&layout, &x, &x);
        assert_eq!(hot[same], coded[same]);
        assert_ne!(hot[1 - same], coded[1 - same]);
    }
}

#[test]
#[should_panic(expected = "a page of another layout")]
fn a_sealed_page_is_not_written() {
    let layout = PageLayout::new(KvFormat::Kivi4, 64, 64).unwrap();
    layout.write_slot(&mut vec![0; layout.sealed_page_bytes()], 0, &[0.0; 64], &[0.0; 64]);
}

#[test]
fn pages_that_cannot_be_sealed_are_refused() {
    for format in [KvFormat::Kivi2, KvFormat::KvQuant4] {
        let error = PageLayout::new(format, 16, 64).unwrap_err();
        assert!(matches!(error, KernelError::SealedPage { slots: 16, .. }), "{error}");
        let error = PageLayout::new(format, 128, 1024).unwrap_err();
        assert!(matches!(error, KernelError::SealedPage { slots: 128, head_dim: 1024, .. }), "{error}");
        assert!(matches!(PageLayout::new(format, 64, 80), Err(KernelError::PartialKvBlock { .. })));
    }
}

#[test]
fn names_round_trip() {
    for format in KvFormat::ALL {
        assert_eq!(KvFormat::from_name(&format.name().to_uppercase()), Some(format));
    }
    assert_eq!(KvFormat::from_name("f8"), None);
}

#[test]
#[should_panic(expected = "a page of another layout")]
fn a_page_of_another_layout_is_not_written() {
    let layout = PageLayout::new(KvFormat::F16, 16, 8).unwrap();
    layout.write_slot(&mut [0; 100], 0, &[0.0; 8], &[0.0; 8]);
}
