//! [`Plan`]: how perplexity is measured, checked before anything runs.

use roofline_engine::{CacheSpec, KvFormats, SessionOptions};
use serde::Serialize;

use super::{Convention, QualityError, Text, Window};

/// How the tokens of a window go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Many rows at once. For policies whose rows see the same keys as in decode steps.
    Parallel,
    /// A prompt at once, which is not scored and may be compressed, then one token after the other.
    Decode,
}

impl Mode {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Parallel => "parallel",
            Mode::Decode => "decode",
        }
    }

    /// The mode in which a setup does what it does when a text is generated. The rows of `full` and `static` see every
    /// token before them, those of `streaming` and `duo` a band, at once as one by one; all other policies compress a
    /// prompt, drop or choose in decode steps. Storage that seals pages does so between steps, so that rows that come at
    /// once would find less of it sealed.
    pub fn needed_by(setup: &Setup) -> Mode {
        match setup.cache {
            _ if setup.kv_format.seals() => Mode::Decode,
            CacheSpec::Full | CacheSpec::Static { .. } | CacheSpec::Streaming(_) | CacheSpec::Duo(_) => {
                Mode::Parallel
            }
            CacheSpec::Compress(_)
            | CacheSpec::Heavy(_)
            | CacheSpec::Quest(_)
            | CacheSpec::EvictThenQuest(..) => Mode::Decode,
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// What the cache keeps.
    pub cache: CacheSpec,
    /// How it stores numbers.
    pub kv_format: KvFormats,
}

impl Setup {
    /// The cache that keeps everything.
    pub fn full(kv_format: impl Into<KvFormats>) -> Setup {
        Setup { cache: CacheSpec::Full, kv_format: kv_format.into() }
    }
}

/// How it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Windows and scored range.
    pub convention: Convention,
    /// Tokens of a window.
    pub context: usize,
    /// Tokens from window to window; the context but for [`Convention::Strided`].
    pub stride: usize,
    /// The token put before a text or in place of a window's first, by [`super::lead`].
    pub bos: Option<u32>,
    /// How tokens go in.
    pub mode: Mode,
    /// In [`Mode::Decode`], tokens of a window that go in as its prompt and are not scored.
    pub prompt: usize,
    /// Rows per step where many go in at once.
    pub chunk: usize,
    /// Buckets of the position in the window.
    pub buckets: usize,
}

/// More ranges of the position than are read.
const MOST_BUCKETS: usize = 1000;

/// A window and the text it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub text: usize,
    pub window: Window,
}

impl Plan {
    /// The reference's plan for a model that takes `limit` tokens, measured in parallel; BOS as given.
    pub fn of(convention: Convention, limit: usize, bos: Option<u32>) -> Plan {
        let context = convention.default_context(limit);
        Plan {
            convention,
            context,
            stride: convention.default_stride(context),
            bos,
            mode: Mode::Parallel,
            prompt: context / 2,
            chunk: SessionOptions::default().chunk,
            buckets: 8,
        }
    }

    /// Which tokens are scored, in words.
    pub fn scored_range(&self) -> String {
        let range = self.convention.scored_range(self.context, self.stride);
        match self.mode {
            Mode::Parallel => range,
            Mode::Decode => format!("{range}; none that the prompt of {} tokens predicts", self.prompt),
        }
    }

    /// Refuses, before any weight is read, what [`super::measure`] would refuse: numbers out of range, texts too short,
    /// setups that this plan would not measure. `limit`: tokens the model takes.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self, texts: &[Text], limit: usize, setups: &[&Setup]) -> Result<(), QualityError> {
        let places = self.places(texts)?;
        let fed = places.iter().map(|place| place.window.len()).max().unwrap_or(0);
        // The last token of a window is scored and not fed; a rolling window has one before its first instead.
        let longest = fed + usize::from(self.convention != Convention::RollingDoc);
        if setups.is_empty() {
            return Err(QualityError::Nothing { what: "cache" });
        }
        if self.chunk == 0 {
            return Err(refuse("--chunk", 0, "a step needs at least one row"));
        }
        if !(1..=MOST_BUCKETS).contains(&self.buckets) {
            return Err(refuse("--buckets", self.buckets, &format!("it takes 1 to {MOST_BUCKETS}")));
        }
        for setup in setups {
            let cache = setup.cache.to_string();
            if self.mode == Mode::Parallel && Mode::needed_by(setup) == Mode::Decode {
                let setup = format!("{cache} in {}", setup.kv_format);
                return Err(QualityError::Parallel { setup });
            }
            if longest > limit && !setup.cache.is_endless() {
                return Err(QualityError::Context { wanted: longest, limit, cache });
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), QualityError> {
        let (least, why) = match self.convention {
            Convention::HalfChunk => (3, "half of a window of 3 is the least that can be scored"),
            Convention::Strided => (2, "a window of 2 is the least that can be scored"),
            Convention::RollingDoc => (1, "a window needs a token"),
        };
        if self.context < least {
            return Err(refuse("--context", self.context, why));
        }
        if self.stride == 0 {
            return Err(refuse("--stride", 0, "windows have to move on"));
        }
        if self.stride > self.context {
            let why = format!("tokens between windows of {} would not be scored", self.context);
            return Err(refuse("--stride", self.stride, &why));
        }
        if self.convention != Convention::Strided && self.stride != self.context {
            let why = format!("windows of {} do not overlap; use --convention strided", self.convention);
            return Err(refuse("--stride", self.stride, &why));
        }
        if self.mode == Mode::Decode && !(1..self.context).contains(&self.prompt) {
            let why = format!("it takes 1 to {} of a window", self.context - 1);
            return Err(refuse("--prompt", self.prompt, &why));
        }
        Ok(())
    }

    /// The windows of all texts that have something to score.
    pub(super) fn places(&self, texts: &[Text]) -> Result<Vec<Place>, QualityError> {
        self.check_numbers()?;
        if texts.is_empty() {
            return Err(QualityError::Nothing { what: "text" });
        }
        let (mut places, mut longest) = (Vec::new(), 0);
        for (text, words) in texts.iter().enumerate() {
            for window in self.convention.windows(words.tokens(), self.context, self.stride, self.bos)? {
                longest = longest.max(window.len());
                let window = match self.mode {
                    Mode::Parallel => window,
                    Mode::Decode => window.from_row(self.prompt),
                };
                if window.scored() > 0 {
                    places.push(Place { text, window });
                }
            }
        }
        match places.is_empty() {
            true => Err(QualityError::AllPrompt { prompt: self.prompt, longest }),
            false => Ok(places),
        }
    }
}

fn refuse(option: &'static str, given: usize, why: &str) -> QualityError {
    QualityError::Option { option, given, why: why.to_string() }
}
