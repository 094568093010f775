//! The kernel table takes the widest kernel the machine runs, for every operation and format, and says so.

use roofline_kernels::{Isa, KernelTable, Operation, SkipReason};
use roofline_weights::Format;

/// The level that a matrix kernel of `format` must have on a machine of level `isa`. Floats gain nothing from integer
/// dot products, and NEON's are not used yet.
fn expected(format: Format, isa: Isa) -> Isa {
    match isa {
        Isa::Avx512Vnni if !format.is_quantized() => Isa::Avx512,
        Isa::NeonDot => Isa::Neon,
        isa => isa,
    }
}

#[test]
fn no_matrix_kernel_is_narrower_than_the_machine_offers() {
    for isa in Isa::available() {
        let table = KernelTable::detect(Some(isa)).unwrap();
        for operation in [Operation::Gemv, Operation::Gemm] {
            for format in Format::ALL {
                let choice = table
                    .choices()
                    .find(|choice| choice.operation == operation && choice.format == format.name())
                    .unwrap_or_else(|| panic!("{operation} of {format} is not in the table"));
                assert_eq!(choice.chosen, expected(format, isa), "{operation} {format} on {isa}");
            }
        }
    }
}

#[test]
fn every_skipped_kernel_is_wider_than_the_ceiling_and_says_why() {
    for isa in Isa::available() {
        let table = KernelTable::detect(Some(isa)).unwrap();
        assert!(table.choices().count() > 2 * Format::ALL.len());
        for choice in table.choices() {
            assert!(isa.includes(choice.chosen));
            for (skipped, reason) in &choice.skipped {
                assert!(!isa.includes(*skipped), "{choice:?}");
                let available = *reason == SkipReason::WiderThanRequested;
                assert_eq!(skipped.is_available(), available, "{choice:?}");
            }
        }
    }
}
