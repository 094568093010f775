//! The vector operations that the matrix kernels are written in, one type per instruction set.
//!
//! A vector has one lane of 32 bits per output row. The kernels are generic over [`Simd`] and are compiled once per
//! instruction set by the `#[target_feature]` functions in `dispatch`. The methods here are `#[inline(always)]`
//! rather than tagged with the feature, so that they take on the features of the function they end up in.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;

/// Writes the methods of a [`Simd`] type, each a single expression of intrinsics.
macro_rules! operations {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty { $($body:tt)* })*) => {
        $(
            #[inline(always)]
            #[allow(unused_unsafe)] // a few do nothing
            unsafe fn $name($($arg: $ty),*) -> $ret {
                // SAFETY: the caller promises the instructions, and what is behind the pointers.
                unsafe { $($body)* }
            }
        )*
    };
}
pub(crate) use operations;

/// Vectors of one instruction set.
///
/// # Safety
/// All methods: the machine has the instructions. Loads and stores: the pointer is good for the bytes named; no
/// alignment is asked for.
#[allow(clippy::missing_safety_doc)] // said once, above
pub(crate) trait Simd {
    /// Rows of a vector: 4, 8 or 16.
    const LANES: usize;
    /// 32-bit integers, or pairs of 16-bit ones.
    type Int: Copy;
    /// f32.
    type Float: Copy;
    /// Sums of products of 16-bit pairs on their way; [`Simd::total`] completes them.
    type Sum: Copy;

    /// Loads `4 * LANES` bytes.
    unsafe fn load(from: *const u8) -> Self::Int;
    /// Loads `LANES` bytes, each into a lane, as signed integers.
    unsafe fn load_i8(from: *const u8) -> Self::Int;
    /// The same, unsigned.
    unsafe fn load_u8(from: *const u8) -> Self::Int;
    /// Stores `4 * LANES` bytes.
    unsafe fn store(to: *mut u8, a: Self::Int) -> ();
    /// One value in each 16-bit half lane.
    unsafe fn splat16(value: i16) -> Self::Int;
    /// One value in each lane.
    unsafe fn splat32(value: i32) -> Self::Int;
    /// Two 16-bit values in each lane.
    unsafe fn splat_pair(from: *const i16) -> Self::Int;
    unsafe fn and(a: Self::Int, b: Self::Int) -> Self::Int;
    unsafe fn or(a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a | (b & c)`.
    unsafe fn or_and(a: Self::Int, b: Self::Int, c: Self::Int) -> Self::Int;
    unsafe fn sub8(a: Self::Int, b: Self::Int) -> Self::Int;
    unsafe fn sub16(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Shifts 16-bit halves right, zeros coming in. The count is a constant once inlined.
    unsafe fn shr16(a: Self::Int, count: usize) -> Self::Int;
    unsafe fn shl16(a: Self::Int, count: usize) -> Self::Int;
    unsafe fn shr32(a: Self::Int, count: usize) -> Self::Int;
    unsafe fn shl32(a: Self::Int, count: usize) -> Self::Int;
    /// Low halves of the products.
    unsafe fn mul16(a: Self::Int, b: Self::Int) -> Self::Int;
    unsafe fn mul32(a: Self::Int, b: Self::Int) -> Self::Int;
    unsafe fn add32(a: Self::Int, b: Self::Int) -> Self::Int;
    unsafe fn sub32(a: Self::Int, b: Self::Int) -> Self::Int;

    unsafe fn max_u32(a: Self::Int, b: Self::Int) -> Self::Int;
    /// The largest lane.
    unsafe fn largest_u32(a: Self::Int) -> u32;
    /// The sum of all lanes.
    unsafe fn sum_i32(a: Self::Int) -> i32;
    /// Nearest integers, ties to even.
    unsafe fn round(a: Self::Float) -> Self::Int;
    /// Stores the lanes, which fit 16 bits.
    unsafe fn store_i16(to: *mut i16, a: Self::Int) -> ();
    /// Stores the lowest byte of each lane.
    unsafe fn store_low_bytes(to: *mut u8, a: Self::Int) -> ();

    /// Stores the low halves of the lanes, whatever the upper ones are, 16 bits each.
    unsafe fn store_low_halves(to: *mut u8, a: Self::Int) -> ();
    /// Loads four words, `at` bytes behind each of `LANES` pointers: word `i` of all of them is vector `i`.
    unsafe fn turn(from: *const *const u8, at: usize) -> [Self::Int; 4];

    unsafe fn zero_sum() -> Self::Sum;
    /// Adds the two products of each lane's 16-bit pairs.
    unsafe fn dot(sum: Self::Sum, a: Self::Int, b: Self::Int) -> Self::Sum;
    /// The sum of two.
    unsafe fn join(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    unsafe fn total(sum: Self::Sum) -> Self::Int;

    /// Nearest f32 of each integer.
    unsafe fn to_float(a: Self::Int) -> Self::Float;
    /// Bits as f32.
    unsafe fn as_float(a: Self::Int) -> Self::Float;
    /// Loads `LANES` f32.
    unsafe fn load_f32(from: *const f32) -> Self::Float;
    /// Loads `LANES` f16.
    unsafe fn load_f16(from: *const u8) -> Self::Float;
    unsafe fn store_f32(to: *mut f32, a: Self::Float) -> ();
    unsafe fn splat_f32(value: f32) -> Self::Float;
    unsafe fn add(a: Self::Float, b: Self::Float) -> Self::Float;
    unsafe fn mul(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// `c - a * b`, rounded once.
    unsafe fn fnma(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// Asks for the cache line at `from`; any address will do. It is fetched into the second level: those of the
    /// first that can be under way at one time are too few to keep memory busy.
    unsafe fn prefetch(from: *const u8) -> ();
    /// The same, into the first level: for what is in the second, or will be soon.
    unsafe fn prefetch_near(from: *const u8) -> ();
}

/// Products of quads of bytes, exact for all values that a weight format holds.
///
/// `SMALL` promises weights of at most 63 in magnitude, so that two products and their sum fit 16 bits.
///
/// # Safety
/// All methods: the machine has the instructions.
#[allow(clippy::missing_safety_doc)] // said once, above
pub(crate) trait ByteProducts: Simd {
    /// What is added to the activations that meet signed weights, as these instructions multiply signed by unsigned.
    const BIAS: i32;
    /// Sums beside each other that a block of one output is added up in, 1 or 2: as many as registers allow.
    const CHAINS: usize;
    /// Whether signed weights meet two rows of activations at a time, by [`Self::dot_two_rows`]. Then `BIAS` is 0.
    const TWO_ROWS: bool = false;

    /// Sums that start at the integers behind the pointer.
    unsafe fn sums_from(from: *const i32) -> Self::Sum;
    /// Adds to each lane the four products of its signed weights and of activations that [`Self::BIAS`] was added to.
    unsafe fn dot_signed<const SMALL: bool>(sum: Self::Sum, weights: Self::Int, x: Self::Int) -> Self::Sum;
    /// Adds to each lane the four products of its unsigned weights and of signed activations.
    unsafe fn dot_unsigned<const SMALL: bool>(sum: Self::Sum, weights: Self::Int, x: Self::Int) -> Self::Sum;

    /// Two neighbouring quads of weights as [`Self::dot_two_rows`] wants them. This and the two below are called where
    /// `TWO_ROWS` is true; what stands here only says what they mean.
    #[inline(always)]
    unsafe fn pair_quads(quads: [Self::Int; 2]) -> [Self::Int; 2] {
        quads
    }
    /// Adds the products of two quads, as [`Self::pair_quads`] left them, with the eight bytes at each row of activations.
    /// Which sum is whose is known once [`Self::part_rows`] has seen them; sums that start alike in all lanes may start here.
    #[inline(always)]
    unsafe fn dot_two_rows(
        mut sums: [Self::Sum; 2],
        quads: [Self::Int; 2],
        rows: [*const u8; 2],
    ) -> [Self::Sum; 2] {
        for (sum, row) in sums.iter_mut().zip(rows) {
            for (quad, weights) in quads.into_iter().enumerate() {
                // SAFETY: by the contract; a row has eight bytes.
                *sum = unsafe {
                    let x = Self::splat_pair(row.add(4 * quad).cast());
                    Self::dot_signed::<false>(*sum, weights, x)
                };
            }
        }
        sums
    }
    /// The sums of the first row and of the second.
    #[inline(always)]
    unsafe fn part_rows(sums: [Self::Sum; 2]) -> [Self::Sum; 2] {
        sums
    }
}

/// Vectors that multiply pairs of bf16.
pub(crate) trait Bf16Products: Simd {
    /// Adds to each lane the two products of its pairs, each rounded to f32; subnormal numbers count as zero.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn dot_bf16(sum: Self::Float, a: Self::Int, b: Self::Int) -> Self::Float;
}

/// Vectors that multiply bytes.
pub(crate) trait ByteDot: Simd {
    /// Adds to each lane the four products of its unsigned bytes of `a` and signed bytes of `b`.
    unsafe fn dot_bytes(sum: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int;
}
