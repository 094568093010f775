//! The expert FFN: rows are grouped by expert, so that each touched expert's weights are read once per step.

use crate::error::EngineError;
use crate::forward::Pass;
use crate::model::ExpertWeights;
use crate::scratch::{ExpertScratch, Scratch};
use roofline_kernels as kernels;
use roofline_model::config::Ffn;
use roofline_model::operator::{Cost, Operator};

/// x += Σ over the chosen experts of p · w_down(act(w_gate·normed) ⊙ w_up·normed)
pub(crate) fn experts(pass: &mut Pass<'_>, layer: usize, weights: &ExpertWeights) -> Result<(), EngineError> {
    let Ffn::Experts { n_experts, n_active, renormalize, activation, intermediate_size } =
        pass.model.config.ffn
    else {
        return Ok(());
    };
    let (cpu, rows, hidden) = (&pass.model.cpu, pass.rows, pass.model.config.hidden_size);
    let Scratch { normed, activations, gate, up, x, experts: Some(e), .. } = &mut *pass.s else {
        return Ok(());
    };
    let normed = &normed[..rows * hidden]; // (rows, hidden)
    let x = &mut x[pass.first * hidden..]; // (rows, hidden)

    activations.set(&cpu.table, &cpu.team, normed, rows, hidden, &[weights.router.w.format()])?;
    kernels::matmul(
        &cpu.table,
        &cpu.team,
        activations,
        &mut [weights.router.job(rows, &mut e.router, false)],
    )?;
    let (ids, chosen) = (&mut e.ids[..rows * n_active], &mut e.weights[..rows * n_active]);
    let router = &mut e.router[..rows * n_experts];
    kernels::route(&cpu.table, &cpu.team, router, n_experts, n_active, renormalize, ids, chosen)?;
    pass.meter.count(Operator::Router, weights.router.cost(rows));

    let visits = rows * n_active;
    let touched = group_rows(e, rows, n_active);
    gather(e, normed, rows, n_active, hidden);
    activations.set(
        &cpu.table,
        &cpu.team,
        &e.grouped[..visits * hidden],
        visits,
        hidden,
        &weights.in_formats,
    )?;
    let (gate, up) = (&mut gate[..visits * intermediate_size], &mut up[..visits * intermediate_size]);
    kernels::matmul_experts(&cpu.table, &cpu.team, activations, &weights.w_gate, &e.groups, gate)?;
    kernels::matmul_experts(&cpu.table, &cpu.team, activations, &weights.w_up, &e.groups, up)?;
    kernels::activate_gated(&cpu.table, &cpu.team, crate::cpu::activation(activation), gate, up)?;
    activations.set(&cpu.table, &cpu.team, gate, visits, intermediate_size, &weights.out_formats)?;
    kernels::matmul_experts(
        &cpu.table,
        &cpu.team,
        activations,
        &weights.w_down,
        &e.groups,
        &mut e.grouped[..visits * hidden],
    )?;
    scatter(e, x, rows, n_active, hidden);

    let flops = 2 * (visits * 3 * hidden * intermediate_size) as u64;
    let weight_bytes = weights.bytes(&e.groups);
    pass.meter.count_experts(layer, touched);
    pass.meter.count(Operator::Experts, Cost { weight_bytes, flops, ..Cost::default() });
    Ok(())
}

/// Counting sort of the (row, expert) visits: `groups` gets each expert's range, `place` each visit's index. Returns
/// how many experts are visited.
fn group_rows(e: &mut ExpertScratch, rows: usize, n_active: usize) -> u64 {
    let ids = &e.ids[..rows * n_active];
    e.groups.iter_mut().for_each(|group| *group = 0..0);
    for &id in ids {
        e.groups[id as usize].end += 1;
    }
    let mut start = 0;
    for group in &mut e.groups {
        let count = group.end;
        *group = start..start; // `end` grows again as visits are placed
        start += count;
    }
    for (place, &id) in e.place.iter_mut().zip(ids) {
        let group = &mut e.groups[id as usize];
        *place = group.end;
        group.end += 1;
    }
    e.groups.iter().filter(|group| !group.is_empty()).count() as u64
}

/// `grouped[place] = normed[row]` for every visit.
fn gather(e: &mut ExpertScratch, normed: &[f32], rows: usize, n_active: usize, hidden: usize) {
    for (visit, &place) in e.place[..rows * n_active].iter().enumerate() {
        let row = visit / n_active;
        e.grouped[place * hidden..][..hidden].copy_from_slice(&normed[row * hidden..][..hidden]);
    }
}

/// `x[row] += weight · grouped[place]`, the experts of a row in its own order, the most probable first, whatever rows stand beside it.
fn scatter(e: &ExpertScratch, x: &mut [f32], rows: usize, n_active: usize, hidden: usize) {
    for (visit, &place) in e.place[..rows * n_active].iter().enumerate() {
        let (row, weight) = (visit / n_active, e.weights[visit]);
        let from = &e.grouped[place * hidden..][..hidden];
        for (x, y) in x[row * hidden..][..hidden].iter_mut().zip(from) {
            *x += weight * y;
        }
    }
}
