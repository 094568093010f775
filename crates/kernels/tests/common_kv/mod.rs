//! A KV layer with scattered pages, and attention in f64 to compare with.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part; a helper of tests may stop them

use roofline_kernels::{AttentionShape, Band, KernelTable, KvLayer, LaneView, PageLayout, PageRef};

/// Numbers that look random and are the same every time.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1u32 << 23) as f32) - 1.0
    }

    pub fn fill(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * scale).collect()
    }
}

/// One layer of one sequence. Pages of the lanes are interleaved, and slots never written hold NaN.
#[derive(Clone)]
pub struct Layer {
    pub layout: PageLayout,
    pool: Vec<Vec<u8>>,
    sealed: Vec<bool>, // (pages)
    tables: Vec<Vec<u32>>,
    lens: Vec<usize>,
}

impl Layer {
    pub fn new(layout: PageLayout, n_kv_heads: usize) -> Layer {
        Layer {
            layout,
            pool: Vec::new(),
            sealed: Vec::new(),
            tables: vec![Vec::new(); n_kv_heads],
            lens: vec![0; n_kv_heads],
        }
    }

    pub fn push(&mut self, kv_head: usize, k: &[f32], v: &[f32]) {
        let slot = self.lens[kv_head];
        if slot.is_multiple_of(self.layout.slots()) {
            self.tables[kv_head].push(self.pool.len() as u32);
            self.pool.push(vec![0xff; self.layout.page_bytes()]); // NaN in every format
            self.sealed.push(false);
        }
        let page = self.tables[kv_head][slot / self.layout.slots()];
        self.layout.write_slot(&mut self.pool[page as usize], slot % self.layout.slots(), k, v);
        self.lens[kv_head] += 1;
    }

    pub fn random(
        layout: PageLayout,
        n_kv_heads: usize,
        slots: usize,
        scale: f32,
        noise: &mut Noise,
    ) -> Layer {
        let mut layer = Layer::new(layout, n_kv_heads);
        for _ in 0..slots {
            for kv_head in 0..n_kv_heads {
                let (k, v) = (noise.fill(layout.head_dim(), scale), noise.fill(layout.head_dim(), 1.0));
                layer.push(kv_head, &k, &v);
            }
        }
        layer
    }

    /// Seals the pages whose slots all come before `slot`.
    pub fn seal_before(&mut self, slot: usize) {
        for table in &self.tables {
            for &id in &table[..slot / self.layout.slots()] {
                let (page, sealed) = (&mut self.pool[id as usize], &mut self.sealed[id as usize]);
                if !std::mem::replace(sealed, true) {
                    let mut coded = vec![0xff; self.layout.sealed_page_bytes()];
                    self.layout.seal(page, &mut coded);
                    *page = coded;
                }
            }
        }
    }

    fn place(&self, kv_head: usize, slot: usize) -> (PageRef<'_>, usize) {
        let page = self.tables[kv_head][slot / self.layout.slots()];
        (self.page(page), slot % self.layout.slots())
    }

    /// A layer of that one lane.
    pub fn only(&self, kv_head: usize) -> Layer {
        let (tables, lens) = (vec![self.tables[kv_head].clone()], vec![self.lens[kv_head]]);
        Layer { layout: self.layout, pool: self.pool.clone(), sealed: self.sealed.clone(), tables, lens }
    }

    /// Slots of the first lane.
    pub fn lane_len(&self) -> usize {
        self.lens[0]
    }

    /// Key and value as stored.
    pub fn slot(&self, kv_head: usize, slot: usize) -> (Vec<f32>, Vec<f32>) {
        let (page, slot) = self.place(kv_head, slot);
        let (mut k, mut v) = (vec![0.0; self.layout.head_dim()], vec![0.0; self.layout.head_dim()]);
        self.layout.read_key(page, slot, &mut k);
        self.layout.read_value(page, slot, &mut v);
        (k, v)
    }
}

impl KvLayer for Layer {
    fn lane(&self, kv_head: usize) -> LaneView<'_> {
        LaneView { table: &self.tables[kv_head], len: self.lens[kv_head] }
    }
    fn page(&self, id: u32) -> PageRef<'_> {
        let page = &self.pool[id as usize];
        if self.sealed[id as usize] { PageRef::Sealed(page) } else { PageRef::Hot(page) }
    }
}

/// Weights `(n_heads, visible)` and outputs `(n_heads, head_dim)` of one row, in f64 from the stored numbers.
pub fn exact(shape: &AttentionShape, layer: &Layer, q: &[f32], visible: usize) -> (Vec<f64>, Vec<f64>) {
    let (weights, out) = exact_bands(shape, layer, q, q, &vec![Band::first(visible); shape.n_kv_heads]);
    (weights.concat(), out)
}

/// The same for what each KV head sees through a band, the sinks read by `sink_q`. Weights are `(n_heads)` rows of as
/// many slots as the band reaches to, zero where it sees nothing.
pub fn exact_bands(
    shape: &AttentionShape,
    layer: &Layer,
    q: &[f32],
    sink_q: &[f32],
    bands: &[Band], // (n_kv_heads)
) -> (Vec<Vec<f64>>, Vec<f64>) {
    let d = shape.head_dim;
    let (mut weights, mut out) = (Vec::new(), vec![0.0; shape.n_heads * d]);
    let lanes: Vec<Vec<_>> = (bands.iter().enumerate())
        .map(|(kv_head, band)| {
            let seen = |slot: &usize| *slot < band.sinks || *slot >= band.from;
            (0..band.to)
                .map(|slot| if seen(&slot) { layer.slot(kv_head, slot) } else { Default::default() })
                .collect()
        })
        .collect();
    for head in 0..shape.n_heads {
        let kv_head = head / (shape.n_heads / shape.n_kv_heads);
        let (Band { sinks, from, to }, lane) = (bands[kv_head], &lanes[kv_head]);
        let score = |slot: usize| -> f64 {
            let q = if slot < sinks {
                sink_q
            } else if slot >= from {
                q
            } else {
                return f64::NEG_INFINITY;
            };
            let products =
                q[head * d..][..d].iter().zip(&lane[slot].0).map(|(q, k)| f64::from(*q) * f64::from(*k));
            products.sum::<f64>() * f64::from(shape.scale)
        };
        let scores: Vec<f64> = (0..to).map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let of_head: Vec<f64> =
            scores.iter().map(|s| if sum > 0.0 { (s - max).exp() / sum } else { 0.0 }).collect();
        for (slot, weight) in of_head.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            for (out, v) in out[head * d..][..d].iter_mut().zip(&lane[slot].1) {
                *out += weight * f64::from(*v);
            }
        }
        weights.push(of_head);
    }
    (weights, out)
}

/// A table for each level of this machine.
pub fn tables() -> Vec<KernelTable> {
    roofline_kernels::Isa::available().map(|isa| KernelTable::detect(Some(isa)).unwrap()).collect()
}
