//! What can be wrong with a question to this crate.

use roofline_weights::format::Format;

/// Every way in which a limit cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// No device of that name.
    #[error("no device is called {name:?}; the nearest names are {}", .nearest.join(", "))]
    UnknownDevice {
        /// What was asked for.
        name: String,
        /// The closest names in the table, closest first.
        nearest: Vec<String>,
    },
    /// A precision string that has no meaning.
    #[error(
        "cannot read the precision {text:?}: {reason}; write wN[aM][kvK] as in w4a16kv8, or a GGUF file type, as in q4_k_m (nearest: {})",
        .nearest.join(", ")
    )]
    Precision {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
        /// The closest known forms.
        nearest: Vec<String>,
    },
    /// A file-type name that no one knows.
    #[error("no file type is called {text:?}; types are {}", .known.join(", "))]
    FileType {
        /// What was asked for.
        text: String,
        /// Every name there is.
        known: Vec<&'static str>,
    },
    /// A number outside of what makes sense.
    #[error("{what} is {given}, it must be from {min} to {max}")]
    OutOfRange {
        /// The quantity.
        what: &'static str,
        /// Its value, as given.
        given: String,
        /// Smallest value accepted.
        min: f64,
        /// Largest value accepted.
        max: f64,
    },
    /// Text where a whole number was expected.
    #[error("{what} is {given:?}, it must be a whole number")]
    NotANumber {
        /// The quantity.
        what: &'static str,
        /// The text.
        given: String,
    },
    /// A configuration that no engine could run.
    #[error("this configuration cannot run: {0}")]
    Config(String),
    /// A row of a matrix does not fill whole blocks of its format.
    #[error("{tensor} has rows of {cols} weights, which do not fill the blocks of {} of {format}", .format.block_len())]
    Blocks {
        /// The tensor's role.
        tensor: String,
        /// Weights in a row.
        cols: u64,
        /// Its format.
        format: Format,
    },
    /// A tensor whose format nobody said.
    #[error("the format of {tensor} is not known; the file that was read for its formats does not have it")]
    NoFormat {
        /// The tensor's role.
        tensor: String,
    },
    /// The experts of one layer differ in size.
    #[error(
        "the experts of layer {layer} are stored in different formats; a count of touched experts cannot be priced"
    )]
    UnevenExperts {
        /// The layer.
        layer: usize,
    },
    /// A step needs to know how many experts it touched.
    #[error("this model has {layers} layers with experts, the step gives touched counts for {given}")]
    TouchedExperts {
        /// Layers of the model.
        layers: usize,
        /// Counts given.
        given: usize,
    },
    /// An integer count above 2^64.
    #[error("{what} does not fit 64 bits")]
    Overflow {
        /// The quantity.
        what: &'static str,
    },
    /// A hardware file that could not be read.
    #[error("hardware file {file}: {reason}")]
    HardwareFile {
        /// The file, or `built in`.
        file: String,
        /// What the TOML reader or the check said.
        reason: String,
    },
    /// A figure that a calculation needs and the device does not have.
    #[error("{device} has no figure for {what}; add it in a hardware file or name another precision")]
    MissingFigure {
        /// The device.
        device: String,
        /// The figure.
        what: &'static str,
    },
}

/// Checks that `value` lies in `min..=max`; refuses NaN and infinities.
pub fn in_range(what: &'static str, value: f64, min: f64, max: f64) -> Result<f64, LimitsError> {
    if value >= min && value <= max {
        Ok(value)
    } else {
        Err(LimitsError::OutOfRange { what, given: value.to_string(), min, max })
    }
}

/// Checks that `value` lies in `min..=max`.
pub fn count_in_range(what: &'static str, value: u64, min: u64, max: u64) -> Result<u64, LimitsError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(LimitsError::OutOfRange { what, given: value.to_string(), min: min as f64, max: max as f64 })
    }
}

/// Reads a count such as a batch or a context from text, refusing signs, fractions and values outside `1..=max` by name.
pub fn parse_count(what: &'static str, text: &str, max: u64) -> Result<u64, LimitsError> {
    let text = text.trim();
    let refused =
        |given: &str| LimitsError::OutOfRange { what, given: given.to_owned(), min: 1.0, max: max as f64 };
    match text.parse::<i128>() {
        Ok(value) => match u64::try_from(value) {
            Ok(value) => count_in_range(what, value, 1, max),
            Err(_) => Err(refused(text)),
        },
        Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => Err(refused(text)),
        Err(_) => Err(LimitsError::NotANumber { what, given: text.to_owned() }),
    }
}

/// The product of `factors`, or an error when it does not fit 64 bits.
pub(crate) fn product(what: &'static str, factors: &[u64]) -> Result<u64, LimitsError> {
    factors.iter().try_fold(1u64, |p, &f| p.checked_mul(f)).ok_or(LimitsError::Overflow { what })
}

/// The sum of `terms`, or an error when it does not fit 64 bits.
pub(crate) fn sum(what: &'static str, terms: &[u64]) -> Result<u64, LimitsError> {
    terms.iter().try_fold(0u64, |s, &t| s.checked_add(t)).ok_or(LimitsError::Overflow { what })
}
