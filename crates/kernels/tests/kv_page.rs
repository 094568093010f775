//! Pages: what is written is read, rounded as the format says, and nothing else is touched.

use half::{bf16, f16};
use proptest::prelude::*;
use roofline_kernels::{KvFormat, PageLayout, Rows};

fn rounded(format: KvFormat, x: f32) -> f32 {
    match format {
        KvFormat::F32 => x,
        KvFormat::F16 => f16::from_f32(x).to_f32(),
        KvFormat::Bf16 => bf16::from_f32(x).to_f32(),
    }
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
        key in 0usize..3, value in 0usize..3, power in 4u32..9, head_dim in 1usize..70,
        steps in prop::collection::vec((0u8..3, any::<u16>(), any::<u16>(), -1e3f32..1e3), 1..30),
    ) {
        let (key, value) = (KvFormat::ALL[key], KvFormat::ALL[value]);
        let layout = PageLayout::with_formats(key, value, 1 << power, head_dim).unwrap();
        let n = layout.slots();
        prop_assert_eq!(layout.page_bytes(), n * head_dim * (key.width() + value.width()));
        let mut page = vec![0; layout.page_bytes()];
        let mut slots: Slots = vec![(vec![0.0; head_dim], vec![0.0; head_dim]); n];
        for (step, a, b, x) in steps {
            let (a, b) = (a as usize % n, b as usize % n);
            match step {
                0 => {
                    let k: Vec<f32> = (0..head_dim).map(|i| x * (1.0 + i as f32 * 0.37)).collect();
                    let v: Vec<f32> = k.iter().map(|k| -0.1 * k).collect();
                    layout.write_slot(&mut page, a, &k, &v);
                    slots[a].0 = k.iter().map(|x| rounded(key, *x)).collect();
                    slots[a].1 = v.iter().map(|x| rounded(value, *x)).collect();
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
        format in 0usize..3, heads in 1usize..4, head in 0usize..4, head_dim in 1usize..70, first in 0usize..64,
        count in 0usize..64,
    ) {
        let (head, count) = (head % heads, count.min(64 - first));
        let layout = PageLayout::new(KvFormat::ALL[format], 64, head_dim).unwrap();
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
