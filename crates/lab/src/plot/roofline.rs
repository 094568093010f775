//! The roofline of a device with the operators of a model on it (Williams, Waterman, Patterson 2009): performance
//! against arithmetic intensity, both logarithmic. The slope is memory bandwidth, the ceilings are arithmetic.

use super::svg::GREY;
use super::{Axis, Chart, Mark, Note, Scale, Series, Side};
use crate::units::si;

/// A device.
#[derive(Debug, Clone, PartialEq)]
pub struct Roof {
    /// Its name.
    pub name: String,
    /// Memory bandwidth in B/s.
    pub bandwidth: f64,
    /// Peaks of its arithmetic.
    pub ceilings: Vec<Ceiling>,
}

/// A peak.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceiling {
    /// What is multiplied, as `bf16, f32 sums`.
    pub name: String,
    /// FLOP/s.
    pub flops_per_second: f64,
}

/// One operator in one phase.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorPoint {
    /// Its name.
    pub name: String,
    /// `prefill` or `decode`, with what it says about the workload; points of one phase share a colour.
    pub phase: String,
    /// Bytes it moves.
    pub bytes: f64,
    /// FLOPs it computes.
    pub flops: f64,
    /// Seconds it takes, at its limit or measured.
    pub seconds: f64,
}

impl OperatorPoint {
    fn place(&self) -> (f64, f64) {
        (self.flops / self.bytes, self.flops / self.seconds)
    }
}

/// Operators closer than this ratio on both axes share a disc.
const SAME_PLACE: f64 = 1.16;

/// Ceilings closer than this ratio have no room for a name each.
const ROOM_FOR_A_NAME: f64 = 1.4;

/// Draws operators under the roof of a device. Operators that only move bytes have no place on a logarithmic axis; a
/// remark lists them.
pub fn roofline(title: &str, subtitle: &str, roof: &Roof, operators: &[OperatorPoint]) -> Chart {
    let (placed, unplaced): (Vec<&OperatorPoint>, Vec<&OperatorPoint>) =
        operators.iter().filter(|o| o.seconds > 0.0).partition(|o| o.flops > 0.0 && o.bytes > 0.0);
    let mut phases: Vec<&str> = Vec::new();
    for operator in operators {
        if !phases.contains(&operator.phase.as_str()) {
            phases.push(&operator.phase);
        }
    }
    let (low, high) = intensities(roof, &placed);
    let mut series = roof_lines(roof, low, high);
    let mut disc = 0;
    for (color, phase) in phases.iter().enumerate() {
        let of_phase = |o: &&&OperatorPoint| o.phase == *phase;
        let total: f64 = operators.iter().filter(|o| o.phase == *phase).map(|o| o.seconds).sum();
        for group in groups(placed.iter().filter(of_phase).copied().collect()) {
            disc += 1;
            series.push(group_series(&group, phase, total, color, disc));
        }
    }
    Chart {
        title: title.to_string(),
        subtitle: subtitle.to_string(),
        x: Axis {
            label: "arithmetic intensity (FLOP per byte)".into(),
            scale: Scale::Log,
            ..Axis::default()
        },
        y: Axis {
            label: "performance (FLOP/s)".into(),
            scale: Scale::Log,
            include: headroom(roof),
            ..Axis::default()
        },
        series,
        notes: roof_notes(roof, low, high),
        remarks: bytes_only(&unplaced),
    }
}

/// From well left of the leftmost point and the ridges to well right of the rightmost.
fn intensities(roof: &Roof, placed: &[&OperatorPoint]) -> (f64, f64) {
    let ridges = roof.ceilings.iter().map(|c| c.flops_per_second / roof.bandwidth);
    let all = ridges.chain(placed.iter().map(|o| o.place().0));
    let (low, high) = all.fold((f64::INFINITY, 0f64), |(l, h), i| (l.min(i), h.max(i)));
    (low / 2.0, high * 4.0)
}

/// Room above the highest ceiling for its name.
fn headroom(roof: &Roof) -> Vec<f64> {
    roof.ceilings.iter().map(|c| c.flops_per_second * 1.6).collect()
}

/// One line per ceiling; the highest is solid.
fn roof_lines(roof: &Roof, low: f64, high: f64) -> Vec<Series> {
    let highest = roof.ceilings.iter().map(|c| c.flops_per_second).fold(0.0, f64::max);
    let line = |ceiling: &Ceiling| {
        let ridge = ceiling.flops_per_second / roof.bandwidth;
        let is_highest = ceiling.flops_per_second >= highest;
        let slope = is_highest.then_some((low, low * roof.bandwidth));
        let flat = [(ridge, ceiling.flops_per_second), (high, ceiling.flops_per_second)];
        Series {
            name: format!(
                "{}: {}, ridge at {}",
                ceiling.name,
                together(&si(ceiling.flops_per_second, "FLOP/s")),
                ridge_text(ridge)
            ),
            color: GREY,
            mark: if is_highest { Mark::Line } else { Mark::Dashed },
            points: slope.into_iter().chain(flat).collect(),
        }
    };
    roof.ceilings.iter().map(line).collect()
}

fn ridge_text(intensity: f64) -> String {
    together(&format!("{} FLOP/B", si(intensity, "")))
}

fn roof_notes(roof: &Roof, low: f64, high: f64) -> Vec<Note> {
    let slope = Note {
        at: (low, low * roof.bandwidth),
        text: format!("memory: {}", si(roof.bandwidth, "B/s")),
        color: GREY,
        side: Side::BelowRight,
    };
    // Names of ceilings that lie close together share a line above the highest of them.
    let mut ceilings: Vec<&Ceiling> = roof.ceilings.iter().collect();
    ceilings.sort_by(|a, b| b.flops_per_second.total_cmp(&a.flops_per_second));
    let mut notes = vec![slope];
    let mut top = f64::INFINITY;
    for ceiling in ceilings {
        let peak = ceiling.flops_per_second;
        match notes.last_mut() {
            Some(note) if top / peak < ROOM_FOR_A_NAME => {
                note.text = format!("{}; {}", note.text, ceiling.name)
            }
            _ => {
                top = peak;
                notes.push(Note {
                    at: (high, peak),
                    text: ceiling.name.clone(),
                    color: GREY,
                    side: Side::AboveLeft,
                });
            }
        }
    }
    notes
}

/// Neighbours within [`SAME_PLACE`] of the first of a group, in order of intensity.
fn groups(mut operators: Vec<&OperatorPoint>) -> Vec<Vec<&OperatorPoint>> {
    let near = |a: f64, b: f64| a.max(b) / a.min(b) < SAME_PLACE;
    operators.sort_by(|a, b| a.place().0.total_cmp(&b.place().0).then(a.place().1.total_cmp(&b.place().1)));
    let mut groups: Vec<Vec<&OperatorPoint>> = Vec::new();
    for operator in operators {
        let (x, y) = operator.place();
        let home = groups.iter_mut().find(|group| {
            let (group_x, group_y) = group[0].place();
            near(x, group_x) && near(y, group_y)
        });
        match home {
            Some(group) => group.push(operator),
            None => groups.push(vec![operator]),
        }
    }
    groups
}

fn group_series(group: &[&OperatorPoint], phase: &str, total: f64, color: usize, disc: usize) -> Series {
    let sum = |of: fn(&OperatorPoint) -> f64| group.iter().map(|o| of(o)).sum::<f64>();
    let (bytes, flops, seconds) = (sum(|o| o.bytes), sum(|o| o.flops), sum(|o| o.seconds));
    let names: Vec<&str> = group.iter().map(|o| o.name.as_str()).collect();
    Series {
        name: format!(
            "{phase}: {} ({}, {})",
            names.join(", "),
            together(&si(seconds, "s")),
            percent(seconds / total)
        ),
        color,
        mark: Mark::Labelled(disc.to_string()),
        points: vec![(flops / bytes, flops / seconds)],
    }
}

fn percent(share: f64) -> String {
    if share < 0.005 { "below\u{a0}1\u{a0}%".to_string() } else { format!("{:.0}\u{a0}%", 100.0 * share) }
}

/// A number and its unit that stay in one line.
fn together(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// One sentence: which operators, and how long they take together in each phase.
fn bytes_only(operators: &[&OperatorPoint]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    let mut phases: Vec<(&str, f64)> = Vec::new();
    for operator in operators {
        if !names.contains(&operator.name.as_str()) {
            names.push(&operator.name);
        }
        match phases.iter_mut().find(|(phase, _)| *phase == operator.phase) {
            Some((_, seconds)) => *seconds += operator.seconds,
            None => phases.push((&operator.phase, operator.seconds)),
        }
    }
    if names.is_empty() {
        return Vec::new();
    }
    let times: Vec<String> =
        phases.iter().map(|(phase, seconds)| format!("{phase}: {}", together(&si(*seconds, "s")))).collect();
    vec![format!("Bytes without FLOPs, not on the axes: {} ({}).", names.join(", "), times.join("; "))]
}
