//! The exact bytes and FLOPs of a step, operator by operator: the integers that the engine's meter must equal.
//!
//! `docs/accounting.md` defines what counts. [`Accounting`] prices a model once; [`Accounting::step`] is then cheap.

use crate::dims::Dims;
use crate::error::{LimitsError, product, sum};
use crate::kv_format::{HOT_TOKENS, KvFormats, PAGE_SLOTS};
use crate::mix::Recipe;
use roofline_model::ModelConfig;
use roofline_model::operator::{Cost, Operator};
use roofline_model::tensor_plan::{LayerRole, Role};
use roofline_weights::format::Format;
use serde::Serialize;

/// Where the format of each weight tensor comes from.
#[derive(Clone, Copy)]
pub enum WeightFormats<'a> {
    /// A named file type.
    Recipe(Recipe),
    /// A file that was read: the format in memory of each tensor it has.
    Tensors(&'a dyn Fn(Role) -> Option<Format>),
}

/// New tokens of one sequence in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// New tokens.
    pub rows: u64,
    /// Tokens already in the sequence's cache.
    pub kv_before: u64,
}

/// What attention read and multiplied, when a cache policy makes that differ from "everything visible".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionWork {
    /// Slots read, summed over layers and KV heads.
    pub slots_read: u64,
    /// (query, slot) pairs, summed over layers and query heads.
    pub pairs: u64,
    /// Pairs whose score is computed once more to see who attends to what.
    pub watched_pairs: u64,
    /// Bytes read beside K and V: page bounds, and keys that are scored once more.
    pub metadata_bytes: u64,
}

/// One pass through the layers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// The sequences in the step.
    pub segments: Vec<Segment>,
    /// Rows that go through the output head.
    pub head_rows: u64,
    /// How many different experts the rows visited in each layer; empty for a model without experts.
    pub touched_experts: Vec<u64>,
    /// Attention of a cache policy; `None` reads everything visible.
    pub attention: Option<AttentionWork>,
}

impl Step {
    /// A step of one sequence without experts: `rows` new tokens over `kv_before`, `head_rows` of them through the head.
    pub fn single(rows: u64, kv_before: u64, head_rows: u64) -> Step {
        Step { segments: vec![Segment { rows, kv_before }], head_rows, ..Step::default() }
    }

    /// The same step with the experts each layer's rows visited.
    pub fn with_touched_experts(mut self, touched: Vec<u64>) -> Step {
        self.touched_experts = touched;
        self
    }
}

/// The cost of one step, operator by operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCost {
    operators: [Cost; Operator::COUNT],
}

impl StepCost {
    /// The cost of one operator over all layers.
    pub fn get(&self, operator: Operator) -> Cost {
        self.operators[operator as usize]
    }

    /// Operators in the order of the forward pass, those that cost nothing included.
    pub fn iter(&self) -> impl Iterator<Item = (Operator, Cost)> + '_ {
        Operator::ALL.into_iter().map(|operator| (operator, self.get(operator)))
    }

    /// The whole step.
    pub fn total(&self) -> Cost {
        self.operators.iter().fold(Cost::default(), |mut total, cost| {
            total += *cost;
            total
        })
    }
}

/// Weights that one operator reads in a step, over all layers. For experts: all of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OperatorWeights {
    pub stored_bytes: u64,    // matrices at their format
    pub vector_bytes: u64,    // biases and norms, f32
    pub matrix_elements: u64, // weights in matrices
    pub bias_elements: u64,   // weights in biases
}

/// How many parameters a model has, by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// Matrices and biases of all layers, every expert counted.
    pub layers: u64,
    /// Matrices and biases of all layers that one token visits.
    pub layers_active: u64,
    /// Output head, (vocab_size, hidden_size); the embedding table when the two are tied.
    pub head: u64,
    /// Embedding table, (vocab_size, hidden_size).
    pub embedding: u64,
    /// Norm weights and their biases.
    pub norms: u64,
    /// Everything, tied tables counted once.
    pub total: u64,
    /// What one token multiplies with: active layers and head.
    pub active: u64,
}

/// A model priced in one set of formats.
#[derive(Debug, Clone)]
pub struct Accounting {
    pub(crate) dims: Dims,
    pub(crate) weights: [OperatorWeights; Operator::COUNT],
    pub(crate) expert_bytes: Vec<u64>, // one expert of each layer; empty without experts
    pub(crate) embedding_bytes: u64,   // the whole table
    pub(crate) embedding_row_bytes: u64,
    pub(crate) slot_bytes: u64, // of a long context
    written_slot_bytes: u64,
    key_bytes: u64, // as written
    sealed_page_bytes: Option<u64>,
    kv_bytes_per_token: u64,
    resident_bytes: u64,
    pub(crate) flops_per_row: [u64; Operator::COUNT],
}

/// Predicts one step: see [`Accounting`], which is the same in two parts.
pub fn step_cost(
    config: &ModelConfig,
    formats: WeightFormats<'_>,
    kv: impl Into<KvFormats>,
    step: &Step,
) -> Result<StepCost, LimitsError> {
    Accounting::new(config, formats, kv)?.step(step)
}

impl Accounting {
    /// Prices every tensor of `config`. Fails on a configuration that cannot run, on a tensor without a format and on
    /// rows that do not fill the blocks of theirs.
    pub fn new(
        config: &ModelConfig,
        formats: WeightFormats<'_>,
        kv: impl Into<KvFormats>,
    ) -> Result<Accounting, LimitsError> {
        let dims = Dims::new(config)?;
        let pricing = Pricing { dims: &dims, rules: Rules::new(formats, &dims, config) };
        let mut weights = [OperatorWeights::default(); Operator::COUNT];
        let mut expert_bytes = Vec::new();
        let layers = usize::try_from(dims.layers).map_err(|_| LimitsError::Overflow { what: "layers" })?;
        for layer in 0..layers {
            pricing.layer(layer, &mut weights)?;
            if dims.experts.is_some() {
                expert_bytes.push(pricing.expert(layer, &mut weights[Operator::Experts as usize])?);
            }
        }
        let norms = product("norm weights", &[dims.layers, dims.norm_len, 4])?;
        weights[Operator::AttentionNorm as usize].vector_bytes = norms;
        weights[Operator::FfnNorm as usize].vector_bytes = norms;
        weights[Operator::FinalNorm as usize].vector_bytes = dims.norm_len * 4;
        weights[Operator::QkNorm as usize].vector_bytes =
            product("q/k norms", &[dims.layers, dims.qk_norm_len, 4])?;
        let embedding_row_bytes = pricing.row_bytes(Role::TokenEmbedding)?;
        let head = if dims.tied { Role::TokenEmbedding } else { Role::OutputHead };
        pricing.matrix(head, &mut weights[Operator::OutputHead as usize])?;
        let kv = kv.into();
        let slot_bytes = kv.slot_bytes(dims.head_dim)?;
        let sealed_page_bytes = if kv.seals() { Some(kv.sealed_page_bytes(dims.head_dim)?) } else { None };
        let embedding_bytes = product("embedding table", &[dims.vocab, embedding_row_bytes])?;
        let mut resident = vec![if dims.tied { 0 } else { embedding_bytes }];
        resident.extend(weights.iter().flat_map(|w| [w.stored_bytes, w.vector_bytes]));
        Ok(Accounting {
            // every later sum of bytes and of weights is below this one
            resident_bytes: sum("bytes of the model", &resident)?,
            kv_bytes_per_token: product("KV bytes of a token", &[dims.layers, dims.kv_heads, slot_bytes])?,
            flops_per_row: flops_per_row(&dims)?,
            embedding_bytes,
            embedding_row_bytes,
            weights,
            expert_bytes,
            slot_bytes,
            key_bytes: kv.key.row_bytes(dims.head_dim)?,
            written_slot_bytes: kv.written_slot_bytes(dims.head_dim)?,
            sealed_page_bytes,
            dims,
        })
    }

    /// The cost of one step.
    pub fn step(&self, step: &Step) -> Result<StepCost, LimitsError> {
        let mut operators = [Cost::default(); Operator::COUNT];
        let rows = step.segments.iter().try_fold(0u64, |rows, s| sum("rows of a step", &[rows, s.rows]))?;
        for operator in Operator::ALL {
            let weights = &self.weights[operator as usize];
            let cost = &mut operators[operator as usize];
            match operator {
                Operator::Experts | Operator::OutputHead | Operator::FinalNorm => {}
                _ => cost.weight_bytes = weights.stored_bytes + weights.vector_bytes,
            }
            cost.flops = product("FLOPs of a step", &[self.flops_per_row[operator as usize], rows])?;
        }
        operators[Operator::Embed as usize].weight_bytes =
            product("embedding rows", &[rows, self.embedding_row_bytes])?;
        if step.head_rows > 0 {
            let head = &self.weights[Operator::OutputHead as usize];
            operators[Operator::OutputHead as usize] = Cost {
                weight_bytes: head.stored_bytes,
                flops: product("FLOPs of the output head", &[2, step.head_rows, head.matrix_elements])?,
                ..Cost::default()
            };
            operators[Operator::FinalNorm as usize].weight_bytes =
                self.weights[Operator::FinalNorm as usize].vector_bytes;
        }
        operators[Operator::Experts as usize].weight_bytes = self.touched_bytes(&step.touched_experts)?;
        self.attention(step, rows, &mut operators)?;
        Ok(StepCost { operators })
    }

    /// Bytes of K and V of one token, over all layers.
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.kv_bytes_per_token
    }

    /// K and V elements of one token, over all layers.
    pub fn kv_elements_per_token(&self) -> u64 {
        2 * self.dims.layers * self.dims.kv
    }

    /// Bytes of all weights in memory: matrices at their formats, vectors f32, tied tables once.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// Parameter counts.
    pub fn parameters(&self) -> Parameters {
        let elements =
            |o: Operator| self.weights[o as usize].matrix_elements + self.weights[o as usize].bias_elements;
        let (head, experts) = (elements(Operator::OutputHead), elements(Operator::Experts));
        let layers = Operator::ALL.into_iter().map(elements).sum::<u64>() - head;
        let active_experts = match self.dims.experts {
            Some(e) => experts / e.count * e.active,
            None => 0,
        };
        let embedding = self.dims.vocab * self.dims.hidden;
        let norms = self.weights.iter().map(|w| w.vector_bytes / 4 - w.bias_elements).sum::<u64>();
        let layers_active = layers - experts + active_experts;
        Parameters {
            layers,
            layers_active,
            head,
            embedding,
            norms,
            total: layers + norms + embedding + if self.dims.tied { 0 } else { head },
            active: layers_active + head,
        }
    }

    fn touched_bytes(&self, touched: &[u64]) -> Result<u64, LimitsError> {
        if touched.len() != self.expert_bytes.len() {
            return Err(LimitsError::TouchedExperts {
                layers: self.expert_bytes.len(),
                given: touched.len(),
            });
        }
        touched.iter().zip(&self.expert_bytes).try_fold(0u64, |total, (&count, &bytes)| {
            sum("bytes of experts", &[total, product("bytes of experts", &[count, bytes])?])
        })
    }

    fn attention(
        &self,
        step: &Step,
        rows: u64,
        operators: &mut [Cost; Operator::COUNT],
    ) -> Result<(), LimitsError> {
        let d = &self.dims;
        let lanes = product("KV heads of all layers", &[d.layers, d.kv_heads])?;
        let full = self.full_attention(&step.segments, lanes)?;
        let work = step.attention.unwrap_or(full);
        let written = product("slots written", &[lanes, rows])?;
        let append = &mut operators[Operator::KvAppend as usize];
        append.kv_write_bytes = product("KV bytes written", &[written, self.written_slot_bytes])?;
        let (mut slots, mut sealed_bytes) = (work.slots_read, 0);
        // Formats that seal go with caches that keep everything.
        if let Some(page_bytes) = self.sealed_page_bytes.filter(|_| slots == full.slots_read) {
            let (read, sealed) = sealed_pages(&step.segments);
            let (read, sealed) = (product("pages", &[lanes, read])?, product("pages", &[lanes, sealed])?);
            slots -= read * PAGE_SLOTS;
            sealed_bytes = product("KV bytes read", &[read, page_bytes])?;
            append.kv_read_bytes =
                product("KV bytes sealed", &[sealed, PAGE_SLOTS, self.written_slot_bytes])?;
            let coded = product("KV bytes sealed", &[sealed, page_bytes])?;
            append.kv_write_bytes = sum("KV bytes written", &[append.kv_write_bytes, coded])?;
        }
        let attention = &mut operators[Operator::Attention as usize];
        let read = product("KV bytes read", &[slots, self.written_slot_bytes])?;
        attention.kv_read_bytes = sum("KV bytes read", &[read, sealed_bytes, work.metadata_bytes])?;
        let flops = product("FLOPs of attention", &[4, d.head_dim, work.pairs])?;
        let watching = product("FLOPs of attention", &[2, d.head_dim, work.watched_pairs])?;
        attention.flops = sum("FLOPs of attention", &[flops, watching])?;
        Ok(())
    }

    /// Bytes of one key of one KV head.
    pub(crate) fn key_bytes(&self) -> u64 {
        self.key_bytes
    }

    /// Bytes of Quest's bounds of one page in one lane: the smallest and the largest key, in f32 for f32 keys, else in f16.
    pub(crate) fn bound_bytes(&self) -> u64 {
        let width = if self.key_bytes == 4 * self.dims.head_dim { 4 } else { 2 };
        2 * width * self.dims.head_dim
    }

    fn full_attention(&self, segments: &[Segment], lanes: u64) -> Result<AttentionWork, LimitsError> {
        let heads = product("query heads of all layers", &[self.dims.layers, self.dims.heads])?;
        let mut work = AttentionWork { slots_read: 0, pairs: 0, watched_pairs: 0, metadata_bytes: 0 };
        for s in segments {
            let visible = sum("visible tokens", &[s.kv_before, s.rows])?;
            work.slots_read =
                sum("slots read", &[work.slots_read, product("slots read", &[lanes, visible])?])?;
            let pairs = visible_pairs(s.rows, s.kv_before)?;
            work.pairs = sum("visible pairs", &[work.pairs, product("visible pairs", &[heads, pairs])?])?;
        }
        Ok(work)
    }
}

/// Of one lane of each segment: pages that are sealed before the step and read, and pages that are sealed after it. A page is
/// sealed when [`HOT_TOKENS`] have been seen behind it.
fn sealed_pages(segments: &[Segment]) -> (u64, u64) {
    let sealed = |seen: u64| seen.saturating_sub(HOT_TOKENS) / PAGE_SLOTS;
    segments.iter().fold((0, 0), |(read, new), s| {
        let before = sealed(s.kv_before);
        (read.saturating_add(before), new.saturating_add(sealed(s.kv_before.saturating_add(s.rows)) - before))
    })
}

/// (query, key) pairs of one head that a causal mask lets through: rows·kv_before + rows·(rows + 1)/2.
pub fn visible_pairs(rows: u64, kv_before: u64) -> Result<u64, LimitsError> {
    let pairs = u128::from(rows) * u128::from(kv_before) + u128::from(rows) * (u128::from(rows) + 1) / 2;
    u64::try_from(pairs).map_err(|_| LimitsError::Overflow { what: "visible pairs" })
}

/// FLOPs of the matrix products that every row goes through, over all layers.
fn flops_per_row(d: &Dims) -> Result<[u64; Operator::COUNT], LimitsError> {
    let mut flops = [0; Operator::COUNT];
    let products = |what, cols: u64, rows: u64| product(what, &[2, d.layers, cols, rows]);
    flops[Operator::Qkv as usize] = products("FLOPs of q, k, v", d.hidden, d.q + 2 * d.kv)?;
    flops[Operator::Wo as usize] = products("FLOPs of wo", d.q, d.hidden)?;
    match d.experts {
        None => {
            let into = if d.gated { 2 * d.ff } else { d.ff };
            flops[Operator::WGateUp as usize] = products("FLOPs of w_gate and w_up", d.hidden, into)?;
            flops[Operator::WDown as usize] = products("FLOPs of w_down", d.ff, d.hidden)?;
        }
        Some(e) => {
            flops[Operator::Router as usize] = products("FLOPs of the router", d.hidden, e.count)?;
            let one = products("FLOPs of an expert", d.hidden, d.ff)?;
            flops[Operator::Experts as usize] = product("FLOPs of the experts", &[3, e.active, one])?;
        }
    }
    Ok(flops)
}

/// Formats, with the recipe's rules already made for this model.
enum Rules<'a> {
    Recipe(crate::mix::Rules<'a>),
    Tensors(&'a dyn Fn(Role) -> Option<Format>),
}

impl<'a> Rules<'a> {
    fn new(formats: WeightFormats<'a>, dims: &'a Dims, config: &ModelConfig) -> Rules<'a> {
        match formats {
            WeightFormats::Recipe(recipe) => Rules::Recipe(recipe.rules(dims, config)),
            WeightFormats::Tensors(f) => Rules::Tensors(f),
        }
    }

    fn format_of(&self, role: Role) -> Result<Format, LimitsError> {
        match self {
            Rules::Recipe(rules) => Ok(rules.format_of(role)),
            Rules::Tensors(f) => f(role).ok_or_else(|| LimitsError::NoFormat { tensor: format!("{role:?}") }),
        }
    }
}

/// Adds tensors up.
struct Pricing<'a> {
    dims: &'a Dims,
    rules: Rules<'a>,
}

impl Pricing<'_> {
    fn row_bytes(&self, role: Role) -> Result<u64, LimitsError> {
        let Some((_, cols)) = self.dims.matrix_shape(role) else { return Ok(0) };
        let format = self.rules.format_of(role)?;
        let block = format.block_len() as u64;
        if !cols.is_multiple_of(block) {
            return Err(LimitsError::Blocks { tensor: format!("{role:?}"), cols, format });
        }
        product("bytes of a row", &[cols / block, format.block_bytes() as u64])
    }

    fn matrix(&self, role: Role, into: &mut OperatorWeights) -> Result<u64, LimitsError> {
        let Some((rows, cols)) = self.dims.matrix_shape(role) else { return Ok(0) };
        let bytes = product("bytes of a matrix", &[rows, self.row_bytes(role)?])?;
        into.stored_bytes = sum("bytes of weights", &[into.stored_bytes, bytes])?;
        into.matrix_elements = sum("weights", &[into.matrix_elements, product("weights", &[rows, cols])?])?;
        Ok(bytes)
    }

    fn layer(
        &self,
        layer: usize,
        weights: &mut [OperatorWeights; Operator::COUNT],
    ) -> Result<(), LimitsError> {
        let d = self.dims;
        let mut add = |operator: Operator, roles: &[LayerRole], bias: u64| -> Result<(), LimitsError> {
            let into = &mut weights[operator as usize];
            for &role in roles {
                self.matrix(Role::Layer(layer, role), into)?;
            }
            into.bias_elements = sum("biases", &[into.bias_elements, bias])?;
            into.vector_bytes = sum("biases", &[into.vector_bytes, product("biases", &[bias, 4])?])?;
            Ok(())
        };
        let if_has = |has: bool, elements: u64| if has { elements } else { 0 };
        add(
            Operator::Qkv,
            &[LayerRole::Wq, LayerRole::Wk, LayerRole::Wv],
            if_has(d.qkv_bias, d.q + 2 * d.kv),
        )?;
        add(Operator::Wo, &[LayerRole::Wo], if_has(d.out_bias, d.hidden))?;
        if d.experts.is_some() {
            return add(Operator::Router, &[LayerRole::Router], 0);
        }
        let up: &[LayerRole] = if d.gated { &[LayerRole::WGate, LayerRole::WUp] } else { &[LayerRole::WUp] };
        add(Operator::WGateUp, up, if_has(d.ffn_bias, up.len() as u64 * d.ff))?;
        add(Operator::WDown, &[LayerRole::WDown], if_has(d.ffn_bias, d.hidden))
    }

    /// Bytes of one expert of `layer`; all of them are added to `into`.
    fn expert(&self, layer: usize, into: &mut OperatorWeights) -> Result<u64, LimitsError> {
        let count = self.dims.experts.map_or(0, |e| e.count);
        let parts = |e| [LayerRole::ExpertGate(e), LayerRole::ExpertUp(e), LayerRole::ExpertDown(e)];
        let mut one = OperatorWeights::default();
        for role in parts(0) {
            self.matrix(Role::Layer(layer, role), &mut one)?;
        }
        if let Rules::Tensors(formats) = self.rules {
            // a file could store them differently; a recipe cannot
            for e in 1..usize::try_from(count).unwrap_or(usize::MAX) {
                let same = parts(0)
                    .iter()
                    .zip(parts(e))
                    .all(|(a, b)| formats(Role::Layer(layer, *a)) == formats(Role::Layer(layer, b)));
                if !same {
                    return Err(LimitsError::UnevenExperts { layer });
                }
            }
        }
        let bytes = product("bytes of the experts", &[count, one.stored_bytes])?;
        into.stored_bytes = sum("bytes of the experts", &[into.stored_bytes, bytes])?;
        let elements = product("weights of the experts", &[count, one.matrix_elements])?;
        into.matrix_elements = sum("weights of the experts", &[into.matrix_elements, elements])?;
        Ok(one.stored_bytes)
    }
}
