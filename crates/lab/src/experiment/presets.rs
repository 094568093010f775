//! The experiments that come with the program.

use roofline_model::nearest::nearest;

use super::axes;
use super::error::ExperimentError;
use super::ordered::Ordered;
use super::spec::{Analysis, Prompts, Spec};

/// A question with the grid that answers it.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Name.
    pub name: &'static str,
    /// What it asks.
    pub question: &'static str,
    /// How rows become findings.
    pub analysis: Analysis,
    /// (axis, values, values of the quick one)
    pub axes: &'static [(&'static str, &'static str, &'static str)],
    /// Counted runs of each cell.
    pub repeats: usize,
    /// Temperature of the sampler.
    pub temperature: f64,
    /// Whether perplexity and divergence are measured beside.
    pub quality: bool,
    /// Time on two cores with its default models, measured; of the quick one.
    pub takes: (&'static str, &'static str),
}

/// All of them.
pub const PRESETS: [Preset; 12] = [
    Preset {
        name: "output-tokens",
        question: "How does the time of an answer grow with its length, and how far is each token from what memory allows?",
        analysis: Analysis::OutputTokens,
        axes: &[("output", "8,16,32,64,128,256,512,1024", "8,32,128"), ("prompt", "64", "64")],
        repeats: 5,
        temperature: 0.0,
        quality: false,
        takes: ("20 s", "2 s"),
    },
    Preset {
        name: "max-new-tokens",
        question: "Does max_new_tokens cost anything where the answer ends before it?",
        analysis: Analysis::MaxNewTokens,
        axes: &[
            ("cap", "32,64,128,256", "32,128"),
            ("eos", "sentence,off", "sentence,off"),
            ("item", "1,2", "1"),
            ("prompt", "64", "64"),
        ],
        repeats: 5,
        temperature: 0.8,
        quality: false,
        takes: ("20 s", "3 s"),
    },
    Preset {
        name: "prompt-length",
        question: "How does the time to the first token grow with the prompt, and where does it turn from reading weights to computing?",
        analysis: Analysis::PromptLength,
        axes: &[
            ("prompt", "1,2,3,4,6,8,12,16,24,32,48,64,128,256,512,1024", "1,4,16,64,256"),
            ("output", "1", "1"),
            ("chunk", "4096", "4096"),
        ],
        repeats: 7,
        temperature: 0.0,
        quality: false,
        takes: ("20 s", "2 s"),
    },
    Preset {
        name: "context-depth",
        question: "How much slower is a token the more tokens are in the cache, and is it the bytes of the cache?",
        analysis: Analysis::ContextDepth,
        axes: &[
            ("depth", "0,128,256,512,768,1024,1536,1984", "0,512,1024"),
            ("prompt", "1", "1"),
            ("output", "32", "16"),
        ],
        repeats: 5,
        temperature: 0.0,
        quality: false,
        takes: ("20 s", "2 s"),
    },
    Preset {
        name: "cache-policy",
        question: "What does a cache policy save in time and bytes, and what does it cost in quality?",
        analysis: Analysis::CachePolicy,
        axes: &[
            (
                "cache",
                "full,static:fit,streaming:sinks=4,window=124,streaming:sinks=4,window=508,snapkv:budget=128,\
                 snapkv:budget=512,adakv:budget=128,adakv:budget=512,h2o:heavy=64,recent=64,h2o:heavy=256,recent=256,\
                 tova:budget=128,tova:budget=512,quest:budget=128,quest:budget=512",
                "full,streaming:sinks=4,window=124,snapkv:budget=128,quest:budget=128",
            ),
            ("prompt", "1024", "512"),
            ("output", "64", "32"),
        ],
        repeats: 5,
        temperature: 0.0,
        quality: true,
        takes: ("1 min", "20 s"),
    },
    Preset {
        name: "streaming",
        question: "What do a window and its sinks save in time and bytes, and which window is wide enough?",
        analysis: Analysis::CachePolicy,
        axes: &[
            (
                "cache",
                "full,streaming:sinks=4,window=60,streaming:sinks=4,window=124,streaming:sinks=4,window=252,\
                 streaming:sinks=4,window=508,streaming:sinks=4,window=1019,streaming:sinks=4,window=2044,\
                 streaming:sinks=4,window=4092,streaming:sinks=0,window=256,streaming:sinks=1,window=255,\
                 streaming:sinks=2,window=254,streaming:sinks=8,window=248",
                "full,streaming:sinks=4,window=124,streaming:sinks=0,window=128",
            ),
            ("depth", "896", "448"),
            ("prompt", "1", "1"),
            ("output", "64", "32"),
        ],
        repeats: 7,
        temperature: 0.0,
        quality: true,
        takes: ("40 s", "15 s"),
    },
    Preset {
        name: "prompt-compression",
        question: "What do Quest and AdaKV save behind a prompt of 3,000 tokens, and what do they change?",
        analysis: Analysis::CachePolicy,
        axes: &[
            ("model", "demo,Llama-3.2-1B", "demo,pythia-70m"),
            ("precision", "w8", "w8"),
            (
                "cache",
                "full,quest:budget=128,quest:budget=512,quest:budget=1024,adakv:budget=128,adakv:budget=512,\
                 adakv:budget=1024,adakv:budget=512+quest:budget=128",
                "full,quest:budget=128,adakv:budget=128",
            ),
            ("depth", "768,3000", "768,1500"),
            ("prompt", "1", "1"),
            ("output", "32", "16"),
        ],
        repeats: 5,
        temperature: 0.0,
        quality: true,
        takes: ("5 min", "15 s"),
    },
    Preset {
        name: "policy-depth",
        question: "What does each cache policy keep and read at 1k to 32k tokens, and how long is a step?",
        analysis: Analysis::CachePolicy,
        axes: &[
            ("model", "pythia-70m@33000", "pythia-70m@4200"),
            ("precision", "w8", "w8"),
            (
                "cache",
                "full,static:fit,streaming:sinks=4,window=1020,snapkv:budget=1024,pyramidkv:budget=1024,\
                 adakv:budget=1024,chunkkv:budget=1024,knorm:budget=1024,keydiff:budget=1024,expected:budget=1024,\
                 h2o:heavy=512,recent=512,tova:budget=1024,quest:budget=1024,adakv:budget=4096+quest:budget=1024",
                "full,streaming:sinks=4,window=1020,snapkv:budget=1024,quest:budget=1024",
            ),
            ("depth", "1023,4096,16384,32768", "1023,4096"),
            ("prompt", "1", "1"),
            ("output", "32", "16"),
        ],
        repeats: 5,
        temperature: 0.0,
        quality: false,
        takes: ("11 min", "10 s"),
    },
    Preset {
        name: "model-size",
        question: "Does the size of the model decide whether a shorter cache makes a token faster?",
        analysis: Analysis::ModelSize,
        axes: &[
            ("model", "pythia-70m,pythia-410m,pythia-1b,pythia-1.4b", "pythia-70m,pythia-160m"),
            ("precision", "w8", "w8"),
            ("cache", "full,streaming:sinks=4,window=1020", "full,streaming:sinks=4,window=1020"),
            ("depth", "256,1984", "256,1984"),
            ("prompt", "1", "1"),
            ("output", "16", "8"),
        ],
        repeats: 5,
        temperature: 0.0,
        quality: false,
        takes: ("2 min", "1 min"),
    },
    Preset {
        name: "precision",
        question: "What does a narrower weight save in time and bytes, and what does it cost in quality?",
        analysis: Analysis::Precision,
        axes: &[
            ("precision", "w32,w16,w8,w6,w4", "w16,w8,w4"),
            ("prompt", "256", "128"),
            ("output", "64", "32"),
        ],
        repeats: 5,
        temperature: 0.0,
        quality: true,
        takes: ("90 s", "20 s"),
    },
    Preset {
        name: "threads",
        question: "How many threads make a token, and a prompt, faster?",
        analysis: Analysis::Threads,
        axes: &[("prompt", "256", "128"), ("output", "64", "32")],
        repeats: 7,
        temperature: 0.0,
        quality: false,
        takes: ("10 s", "3 s"),
    },
    Preset {
        name: "noise",
        question: "How far apart are two measurements of the same thing?",
        analysis: Analysis::Noise,
        axes: &[("arm", "A,B", "A,B"), ("prompt", "64", "64"), ("output", "64", "32")],
        repeats: 20,
        temperature: 0.0,
        quality: false,
        takes: ("5 s", "3 s"),
    },
];

/// Seed where none is given.
pub const SEED: u64 = 20_261_124;
/// Most warm-up rounds where nothing else is said.
pub const WARM_UP: usize = 3;

/// The preset of that name.
///
/// # Errors
/// [`ExperimentError::Name`] with the nearest.
pub fn find(name: &str) -> Result<&'static Preset, ExperimentError> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| ExperimentError::Name {
        name: name.to_string(),
        nearest: nearest(name, PRESETS.iter().map(|preset| preset.name), 2),
    })
}

impl Preset {
    /// The experiment with its defaults; `quick` for the smaller one.
    pub fn spec(&self, quick: bool) -> Spec {
        let mut axes: Ordered<_> = (self.axes.iter())
            .filter_map(|(name, full, small)| {
                let list = if quick { small } else { full };
                Some((*name, axes::find(name).ok()?.values(list).ok()?))
            })
            .collect();
        if self.analysis == Analysis::Threads {
            axes.set("threads", thread_counts());
        }
        let mut spec = Spec {
            name: self.name.to_string(),
            question: self.question.to_string(),
            analysis: self.analysis,
            axes,
            repeats: self.repeats,
            warm_up: if quick { 1 } else { WARM_UP },
            prompts: Prompts::Text,
            temperature: self.temperature,
            quality: self.quality,
            seed: SEED,
        };
        spec.expand();
        spec
    }
}

/// 1, 2, 4, … below the physical cores, and these.
fn thread_counts() -> Vec<super::rows::Value> {
    let cores = roofline_kernels::physical_cores() as u64;
    let mut counts: Vec<u64> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < cores).collect();
    counts.push(cores);
    counts.into_iter().map(super::rows::Value::Whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_grid_that_can_be_planned() {
        for preset in &PRESETS {
            for quick in [false, true] {
                let spec = preset.spec(quick);
                let cells = spec.cells().unwrap();
                assert!(!cells.is_empty() && cells.len() <= 60, "{}: {}", preset.name, cells.len());
                for (axis, full, small) in preset.axes {
                    let values = axes::find(axis).unwrap().values(if quick { small } else { full });
                    assert_eq!(spec.axes.get(axis), Some(&values.unwrap()), "{} {axis}", preset.name);
                }
            }
            assert!(preset.question.ends_with('?'), "{}", preset.name);
        }
        assert!(find("output-token").unwrap_err().to_string().contains("output-tokens"));
    }
}
