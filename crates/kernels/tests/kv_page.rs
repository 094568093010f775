//! Pages: what is written is read, rounded as the format says, and nothing else is touched.

use half::{bf16, f16};
use proptest::prelude::*;
use proptest::sample::select;
use roofline_kernels::{KernelError, KvFormat, PageLayout, Rows};
use roofline_weights::Format;
use roofline_weights::blocks::{decode, encode};

/// What a row is read as, from the definition of its format.
fn rounded(format: KvFormat, row: &[f32]) -> Vec<f32> {
    match format {
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
        KvFormat::Q8_0 => {
            let (mut bytes, mut out) = (Vec::new(), vec![0.0; row.len()]);
            encode(Format::Q8_0, row, None, &mut bytes).unwrap();
            decode(Format::Q8_0, &bytes, &mut out).unwrap();
            out
        }
    }
}

/// A head_dim that both formats can store.
fn fitting(head_dim: usize, formats: [KvFormat; 2]) -> usize {
    if formats.contains(&KvFormat::Q8_0) { head_dim.next_multiple_of(32) } else { head_dim }
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
        let layout = PageLayout::with_formats(key, value, 1 << power, head_dim).unwrap();
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
        format in select(KvFormat::ALL.to_vec()), heads in 1usize..4, head in 0usize..4, head_dim in 1usize..70, first in 0usize..64,
        count in 0usize..64,
    ) {
        let (head, count) = (head % heads, count.min(64 - first));
        let head_dim = fitting(head_dim, [format, format]);
        let layout = PageLayout::new(format, 64, head_dim).unwrap();
        let stride = heads * head_dim;
        let k: Vec<f32> = (0..count * stride).map(|i| (i as f32 * 0.7).sin()).collect();
        let v: Vec<f32> = (0..count * stride).map(|i| (i as f32 * 0.3).cos()).collect();
        let (mut at_once, mut one_by_one) = (vec![7; layout.page_bytes()], vec![7; layout.page_bytes()]);
        let of_head = |data| Rows { data, stride };
        let at = (head * head_dim).min(k.len());
        layout.write_slots(&mut at_once, first, count, of_head(&k[at..]), of_head(&v[at..]));
        for i in 0..count {
            let at = i * stride + head * head_dim;
            layout.write_slot(&mut one_by_one, first + i, &k[at..at + head_dim], &v[at..at + head_dim]);
        }
        prop_assert_eq!(at_once, one_by_one);
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
