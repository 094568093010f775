//! How many full reports per second: a sweep or a page asks for thousands.
#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros; a bench has no one to return an error to

use criterion::{Criterion, criterion_group, criterion_main};
use roofline_limits::explain::explain;
use roofline_limits::hardware::HardwareTable;
use roofline_limits::report::{Request, Workload, report};
use roofline_limits::{Precision, Profile, Switches};
use roofline_model::presets;

fn reports(c: &mut Criterion) {
    let hardware = HardwareTable::built_in().unwrap().get("RTX 4090").unwrap();
    let workload = Workload::default();
    for (model, precision) in [("Llama-3-8B", "w16a16"), ("Llama-3-70B", "q4_k_m"), ("OLMoE-1B-7B", "q4_k_m")]
    {
        let preset = presets::find(model).unwrap();
        let config = preset.config().unwrap();
        let precision = Precision::parse(precision, Profile::Si).unwrap();
        let request = Request::new(&config, hardware, &precision, &workload, Switches::SI);
        c.bench_function(&format!("report {model} {}", precision.label), |b| {
            b.iter(|| report(&request).unwrap())
        });
    }
    let config = presets::find("Llama-3-8B").unwrap().config().unwrap();
    let precision = Precision::parse("q4_k_m", Profile::Si).unwrap();
    let request = Request::new(&config, hardware, &precision, &workload, Switches::SI);
    c.bench_function("explain Llama-3-8B q4_k_m", |b| b.iter(|| explain(&request).unwrap()));
}

criterion_group!(benches, reports);
criterion_main!(benches);
