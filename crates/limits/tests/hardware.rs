//! The device table.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail where it stands

use roofline_limits::LimitsError;
use roofline_limits::hardware::{Confidence, Hardware, HardwareTable, NumberType};

fn table() -> &'static HardwareTable {
    HardwareTable::built_in().unwrap()
}

#[test]
fn every_device_has_plausible_figures_with_sources() {
    assert_eq!(table().devices.len(), 62);
    for device in &table().devices {
        let name = &device.name;
        device.validate().unwrap();
        let figures = device
            .peaks
            .values()
            .chain([&device.bandwidth])
            .chain(&device.memory)
            .chain(&device.measured_bandwidth);
        figures.for_each(|figure| assert!(figure.source.len() > 3, "{name}"));
        assert!(device.peaks.contains_key(&NumberType::F32), "{name}");
        for measured in &device.measured_bandwidth {
            assert!(measured.value <= device.bandwidth.value, "{name} is measured above its data sheet");
        }
        // a narrower input or accumulator is never slower than the type it narrows
        let peak = |number| device.peaks.get(&number).map(|p| p.value);
        for (wide, narrow) in [
            (NumberType::F32, NumberType::Bf16F32),
            (NumberType::Bf16F32, NumberType::Int8I32),
            (NumberType::F16F32, NumberType::F16F16),
            (NumberType::Fp8F32, NumberType::Fp8F16),
            (NumberType::Int8I32, NumberType::Int4I32),
        ] {
            if let (Some(wide), Some(narrow)) = (peak(wide), peak(narrow)) {
                assert!(narrow >= wide, "{name}: {narrow} below {wide}");
            }
        }
    }
}

#[test]
fn names_of_the_article_and_of_vendors_mean_the_same_device() {
    for name in ["4090", "rtx4090", "RTX-4090", "NVIDIA GeForce RTX 4090", "GeForce RTX 4090"] {
        assert_eq!(table().get(name).unwrap().name, "RTX 4090", "{name}");
    }
    for (name, device) in [
        ("NVIDIA H100 SXM", "NVIDIA H100 SXM 80GB"),
        ("AMD Ryzen 7950X", "AMD Ryzen 9 7950X (2ch DDR5-5200)"),
        ("M2 Ultra", "Apple M2 Ultra (76)"),
        ("Apple M4", "Apple M4 (10)"),
        ("H200", "NVIDIA H200 SXM 141GB"),
    ] {
        assert_eq!(table().get(name).unwrap().name, device, "{name}");
    }
}

#[test]
fn aliases_are_unambiguous() {
    for device in &table().devices {
        for name in device.aliases.iter().chain([&device.name]) {
            assert_eq!(table().get(name).unwrap().name, device.name, "{name}");
        }
    }
}

#[test]
fn a_laptop_card_is_not_its_desktop_namesake() {
    let error = table().get("RTX 5070 Laptop GPU").unwrap_err();
    let LimitsError::UnknownDevice { nearest, .. } = &error else { panic!("{error}") };
    assert!(nearest[0].starts_with("RTX 5070"), "{nearest:?}");
    assert!(table().get("rtx 4009").unwrap_err().to_string().contains("RTX 4090"));
    assert!(table().get("").is_err());
}

#[test]
fn the_peak_is_that_of_the_number_type() {
    let rtx = table().get("4090").unwrap();
    let peak = |bits| rtx.peak_for(bits).map(|(number, figure)| (number, figure.value / 1e12)).unwrap();
    assert_eq!(peak(32), (NumberType::F32, 82.58));
    assert_eq!(peak(16), (NumberType::Bf16F32, 165.2));
    assert_eq!(peak(8).0, NumberType::Int8I32);
    assert_eq!(peak(4), (NumberType::Int4I32, 1321.2));
    let i9 = table().get("Intel Core i9-13900K (2ch DDR5-5600)").unwrap();
    assert_eq!(i9.peak_for(16).unwrap().0, NumberType::F32);
}

#[test]
fn a_users_file_adds_and_replaces() {
    let text = r#"
        [[device]]
        name = "RTX 4090"
        bandwidth_gb_s = 1100
        memory_gib = [48, 24]
        peak_tflops = { f32 = 90.0 }
        source = "my overclock"
        confidence = "A"
        [device.figure.f32]
        source = "measured"
        confidence = "C"

        [[device]]
        name = "my box"
        bandwidth_gb_s = 40
    "#;
    let merged = table().merged(HardwareTable::parse("mine.toml", text).unwrap());
    assert_eq!(merged.devices.len(), 63);
    let rtx = merged.get("rtx 4090").unwrap();
    assert_eq!((rtx.bandwidth.value, rtx.bandwidth.source.as_str()), (1100e9, "my overclock"));
    assert_eq!(rtx.peaks[&NumberType::F32].confidence, Confidence::C);
    assert_eq!(rtx.memory_bytes(), Some(48.0 * 1024f64.powi(3)));
    assert_eq!(merged.get("My Box").unwrap().bandwidth.value, 40e9);
}

#[test]
fn a_bad_file_is_refused_with_its_reason() {
    for (text, reason) in [
        ("[[device]]\nname = \"x\"\nbandwidth_gb_s = 0", "bandwidth"),
        ("[[device]]\nname = \"x\"\nbandwidth_gb_s = nan", "bandwidth"),
        ("[[device]]\nname = \"x\"\nbandwidth_gb_s = -3", "bandwidth"),
        ("[[device]]\nname = \"x\"", "bandwidth_gb_s"),
        ("[[device]]\nname = \"x\"\nbandwidth_gb_s = 1\nbandwith = 3", "unknown field"),
        ("[[device]]\nname = \"x\"\nbandwidth_gb_s = 1\npeak_tflops.fp23 = 3", "unknown variant"),
        ("[[device]]\nname = \"x\"\nbandwidth_gb_s = 1\npeak_tflops.f32 = inf", "peak"),
        (
            "[[device]]\nname = \"x\"\nbandwidth_gb_s = 1\n[device.figure.f33]\nsource = \"\"\nconfidence = \"A\"",
            "f33",
        ),
        (
            "[[device]]\nname = \"x\"\nbandwidth_gb_s = 1\n[[device]]\nname = \"X\"\nbandwidth_gb_s = 1",
            "twice",
        ),
        ("device = 3", "device"),
        ("[[device]", "line 1"),
    ] {
        let error = HardwareTable::parse("mine.toml", text).unwrap_err().to_string();
        assert!(error.starts_with("hardware file mine.toml: ") && error.contains(reason), "{text}\n{error}");
    }
    assert!(HardwareTable::read(std::path::Path::new("/nonexistent/x.toml")).is_err());
}

#[test]
fn a_probe_makes_a_device() {
    let peaks = [(NumberType::F32, 1e12), (NumberType::Int8I32, 4e12)];
    let this = Hardware::from_probe("this", 40e9, &peaks, Some(16 << 30), "probe").unwrap();
    assert_eq!(this.bandwidth.confidence, Confidence::Probe);
    assert_eq!(this.peak_for(8).unwrap().1.value, 4e12);
    assert!(Hardware::from_probe("this", f64::INFINITY, &peaks, None, "probe").is_err());
    assert!(Hardware::from_probe("this", 40e9, &[(NumberType::F32, 0.0)], None, "probe").is_err());
}
