//! The kernel table takes the widest kernel the machine runs, for every operation and format, and says so.
#![allow(clippy::panic, clippy::unwrap_used)] // the lint exempts test functions, not their helpers

use roofline_kernels::{Arithmetic, Choice, Isa, KernelTable, Operation, SkipReason};
use roofline_weights::Format;

/// The level that a matrix kernel of `format` must have on a machine of level `isa`, and the numbers it must multiply.
/// Floats gain nothing from integer dot products; `i8mm` has matrix products for prefill, and for the decode of 8-bit weights
/// those of unsigned by signed bytes.
fn expected(operation: Operation, format: Format, isa: Isa, arithmetic: Arithmetic) -> (Isa, &'static str) {
    let numbers = match arithmetic {
        Arithmetic::Fast if format.is_quantized() => "i8",
        Arithmetic::Exact if format.is_quantized() => "i16",
        _ => "f32",
    };
    match isa {
        Isa::Avx512Bf16 if format == Format::Bf16 && arithmetic == Arithmetic::Fast => (isa, "bf16"),
        Isa::Avx512Vnni | Isa::Avx512Bf16 if !format.is_quantized() => (Isa::Avx512, numbers),
        Isa::Avx512Bf16 => (Isa::Avx512Vnni, numbers),
        Isa::NeonI8mm if numbers == "i8" && (operation == Operation::Gemm || format == Format::Q8_0) => {
            (isa, numbers)
        }
        Isa::NeonDot | Isa::NeonI8mm if numbers == "i8" => (Isa::NeonDot, numbers),
        Isa::NeonDot | Isa::NeonI8mm => (Isa::Neon, numbers),
        isa => (isa, numbers),
    }
}

#[test]
fn no_matrix_kernel_is_narrower_than_the_machine_offers() {
    for isa in Isa::available() {
        for arithmetic in [Arithmetic::Fast, Arithmetic::Exact] {
            let table = KernelTable::detect_for(Some(isa), arithmetic).unwrap();
            assert_eq!(table.arithmetic(), arithmetic);
            for operation in [Operation::Gemv, Operation::Gemm] {
                for format in Format::ALL {
                    let choice = choice(&table, operation, format);
                    let want = expected(operation, format, isa, arithmetic);
                    assert_eq!(
                        (choice.chosen, choice.numbers),
                        want,
                        "{operation} {format} on {isa}, {arithmetic}"
                    );
                }
            }
        }
    }
}

fn choice(table: &KernelTable, operation: Operation, format: Format) -> &Choice {
    table.choices().find(|choice| choice.operation == operation && choice.format == format.name()).unwrap()
}

#[test]
fn what_nobody_asked_for_by_name_is_the_fastest_and_a_slower_one_is_told_of() {
    let table = KernelTable::detect(None).unwrap();
    assert_eq!(table.arithmetic(), Arithmetic::Fast);
    for format in Format::ALL {
        let choice = choice(&table, Operation::Gemm, format);
        let slower = choice.skipped.contains(&(Isa::Avx512Bf16, SkipReason::SlowerHere));
        let bf16 = format == Format::Bf16 && Isa::Avx512Bf16.is_available();
        assert_eq!(choice.chosen == Isa::Avx512Bf16 || slower, bf16, "{choice:?}");
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
