//! The text form of [`CacheSpec`], read and written.

use super::params::{Budget, Params};
use super::{CacheSpec, CacheSpecError, Compress, Duo, Heavy, Pool, Quest, Scorer, Select, Split, Streaming};
use crate::eviction::SINKS;
use roofline_model::nearest::distance;
use std::fmt;
use std::str::FromStr;

/// The form of every policy, with the defaults of its parameters.
pub const FORMS: [&str; 14] = [
    "full",
    "static:N",
    "streaming:sinks=4,window=1020[,positions=true]",
    "quest:budget=1024,page=16,dense_layers=2,select=lane",
    "snapkv:budget=N,window=32,kernel=7,pool=max",
    "pyramidkv:budget=N,window=8,kernel=7,pool=max,beta=20",
    "adakv:budget=128,window=32,kernel=7,pool=max,alpha=0.2[,base=knorm]",
    "chunkkv:budget=N,window=32,chunk=20",
    "h2o:heavy=N,recent=N",
    "tova:budget=N",
    "knorm:budget=N",
    "keydiff:budget=N",
    "expected:budget=N,future=512,epsilon=0.02,pinned=4",
    "duo:pattern=FILE,threshold=0.5,sinks=128,recent=256",
];

/// The form of the policy called `name`.
fn form(name: &str) -> Option<&'static str> {
    FORMS.into_iter().find(|form| form.split(':').next() == Some(name))
}

const POOLS: [(&str, Pool); 2] = [("max", Pool::Max), ("avg", Pool::Average)];
const SELECTS: [(&str, Select); 2] = [("lane", Select::Lane), ("head", Select::Head)];
const SWITCH: [(&str, bool); 2] = [("false", false), ("true", true)];

/// Who scores for AdaKV.
#[derive(Clone, Copy)]
enum Base {
    Snap,
    Norm,
    Difference,
    Expected,
}
const BASES: [(&str, Base); 4] = [
    ("snapkv", Base::Snap),
    ("knorm", Base::Norm),
    ("keydiff", Base::Difference),
    ("expected", Base::Expected),
];

impl FromStr for CacheSpec {
    type Err = CacheSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((evict, read)) = text.split_once("+quest") else { return one_policy(text, text) };
        let CacheSpec::Quest(quest) = one_policy(text, &format!("quest{read}"))? else {
            return Err(unknown(text));
        };
        match one_policy(text, evict)? {
            CacheSpec::Full => Ok(CacheSpec::Quest(quest)),
            evict @ CacheSpec::Compress(_) => Ok(CacheSpec::EvictThenQuest(Box::new(evict), quest)),
            other => Err(CacheSpecError::Together {
                one: other.to_string(),
                other: quest.to_string(),
                why: "Quest reads pages by bounds of keys that stay where they are; put it behind a policy that \
                      compresses prompts, as adakv:budget=1024+quest:budget=256",
            }),
        }
    }
}

fn unknown(given: &str) -> CacheSpecError {
    let name = given.split([':', '+']).next().unwrap_or(given);
    // A name that was begun is as near as one that was mistyped.
    let far = |form: &&str| {
        let whole = form.split(':').next().unwrap_or(form);
        let begun: String = whole.chars().take(name.chars().count()).collect();
        distance(name, whole).min(distance(name, &begun) + 1)
    };
    let nearest = FORMS.into_iter().min_by_key(far).unwrap_or("full");
    CacheSpecError::Unknown { given: given.to_owned(), nearest }
}

/// One policy without `+`; `given` is the whole text, for complaints.
fn one_policy(given: &str, text: &str) -> Result<CacheSpec, CacheSpecError> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let Some(form) = form(name).filter(|_| name != "full" || text == name) else {
        return Err(unknown(given));
    };
    if name == "full" {
        return Ok(CacheSpec::Full);
    }
    if name == "static" {
        let capacity = rest.parse().map_err(|_| CacheSpecError::Capacity { given: given.to_owned() })?;
        return Ok(CacheSpec::Static { capacity });
    }
    let mut params = Params::new(given, rest, form)?;
    let spec = match name {
        "streaming" => streaming(&mut params)?,
        "quest" => CacheSpec::Quest(quest(&mut params)?),
        "h2o" => CacheSpec::Heavy(Heavy::H2o {
            heavy: at_least_one(&mut params, "heavy", None)?,
            recent: at_least_one(&mut params, "recent", None)?,
            pinned: params.or("pinned", 0)?,
        }),
        "tova" => CacheSpec::Heavy(Heavy::Tova {
            budget: params.budget("budget", None)?,
            pinned: params.or("pinned", 0)?,
        }),
        "duo" => duo(&mut params)?,
        compressor => CacheSpec::Compress(compress(compressor, &mut params)?),
    };
    params.finish()?;
    Ok(spec)
}

fn at_least_one(
    params: &mut Params<'_>,
    key: &'static str,
    default: Option<usize>,
) -> Result<usize, CacheSpecError> {
    let value = match default {
        Some(default) => params.or(key, default)?,
        None => params.need(key)?,
    };
    if value == 0 { Err(params.wrong(format!("{key}=0: it must be at least 1"))) } else { Ok(value) }
}

fn streaming(params: &mut Params<'_>) -> Result<CacheSpec, CacheSpecError> {
    let pinned = params.or("pinned", 0)?;
    Ok(CacheSpec::Streaming(Streaming {
        // A pinned prefix is what sinks are.
        sinks: params.or("sinks", 4)?.max(pinned),
        window: at_least_one(params, "window", Some(1020))?,
        true_positions: params.choice("positions", &SWITCH)?,
    }))
}

fn quest(params: &mut Params<'_>) -> Result<Quest, CacheSpecError> {
    let page = params.or("page", 16)?;
    if !usize::is_power_of_two(page) || !(16..=256).contains(&page) {
        let near = page.clamp(16, 256).next_power_of_two();
        return Err(params.wrong(format!("page={page}: it must be a power of two from 16 to 256, as {near}")));
    }
    let budget = params.budget("budget", Some(Budget::Tokens(1024)))?;
    if let Budget::Tokens(tokens) = budget
        && tokens < page
    {
        return Err(params.wrong(format!("budget={tokens}: it must be at least one page of {page} tokens")));
    }
    Ok(Quest {
        budget,
        page,
        dense_layers: params.or("dense_layers", 2)?,
        select: params.choice("select", &SELECTS)?,
    })
}

fn duo(params: &mut Params<'_>) -> Result<CacheSpec, CacheSpecError> {
    let threshold: f32 = params.or("threshold", 0.5)?;
    if !(0.0..=1.0).contains(&threshold) {
        return Err(params.wrong(format!("threshold={threshold}: it must be between 0 and 1")));
    }
    let pinned = params.or("pinned", 0)?;
    Ok(CacheSpec::Duo(Duo {
        pattern: params.need("pattern")?,
        threshold,
        sinks: params.or("sinks", 128)?.max(pinned),
        recent: at_least_one(params, "recent", Some(256))?,
    }))
}

fn compress(name: &str, params: &mut Params<'_>) -> Result<Compress, CacheSpecError> {
    let scorer = match name {
        "knorm" => Base::Norm,
        "keydiff" => Base::Difference,
        "expected" => Base::Expected,
        "adakv" => params.choice("base", &BASES)?,
        _ => Base::Snap,
    };
    let window = match (name, scorer) {
        ("pyramidkv", _) => 8,
        ("adakv", _) | (_, Base::Snap) => 32,
        _ => 1, // the last token of a prompt is the one that continues it
    };
    let split = match name {
        "pyramidkv" => Split::Pyramid { beta: at_least_one(params, "beta", Some(20))? },
        "adakv" => Split::Adaptive { alpha: params.or("alpha", 0.2)? },
        "chunkkv" => Split::Chunks { chunk: at_least_one(params, "chunk", Some(20))? },
        _ => Split::Uniform,
    };
    if let Split::Adaptive { alpha } = split
        && !(0.0..=1.0).contains(&alpha)
    {
        return Err(params.wrong(format!("alpha={alpha}: it must be between 0 and 1")));
    }
    let default = (name == "adakv").then_some(Budget::Tokens(128));
    let compress = Compress {
        budget: params.budget("budget", default)?,
        window: at_least_one(params, "window", Some(window))?,
        pinned: match scorer {
            // Its first tokens have no score: they always stay.
            Base::Expected => params.or("pinned", SINKS)?.max(SINKS),
            _ => params.or("pinned", 0)?,
        },
        scorer: match split {
            Split::Chunks { .. } => Scorer::Attention { kernel: 1, pool: Pool::Max }, // a chunk is its own pool
            _ => scorer_of(scorer, params)?,
        },
        split,
    };
    if let Budget::Tokens(budget) = compress.budget
        && budget <= compress.window + compress.pinned
    {
        let (window, pinned) = (compress.window, compress.pinned);
        return Err(params.wrong(format!(
            "budget={budget} leaves nothing to choose beside a window of {window} and {pinned} pinned tokens; it must be \
             at least {}",
            window + pinned + 1
        )));
    }
    Ok(compress)
}

fn scorer_of(base: Base, params: &mut Params<'_>) -> Result<Scorer, CacheSpecError> {
    Ok(match base {
        Base::Snap => {
            let kernel = at_least_one(params, "kernel", Some(7))?;
            if kernel.is_multiple_of(2) {
                let near = kernel + 1;
                return Err(
                    params.wrong(format!("kernel={kernel}: it must be odd, as {near}, to have a middle"))
                );
            }
            Scorer::Attention { kernel, pool: params.choice("pool", &POOLS)? }
        }
        Base::Norm => Scorer::KeyNorm,
        Base::Difference => Scorer::KeyDifference,
        Base::Expected => {
            let epsilon: f32 = params.or("epsilon", 0.02)?;
            if !(0.0..=1.0).contains(&epsilon) {
                return Err(params.wrong(format!("epsilon={epsilon}: it must be between 0 and 1")));
            }
            Scorer::Expected { future: at_least_one(params, "future", Some(512))?, epsilon }
        }
    })
}

impl fmt::Display for Quest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quest { budget, page, dense_layers, select } = self;
        let select = if *select == Select::Lane { "lane" } else { "head" };
        write!(f, "quest:budget={budget},page={page},dense_layers={dense_layers},select={select}")
    }
}

impl fmt::Display for CacheSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheSpec::Full => f.pad("full"),
            CacheSpec::Static { capacity } => write!(f, "static:{capacity}"),
            CacheSpec::Streaming(Streaming { sinks, window, true_positions }) => {
                write!(f, "streaming:sinks={sinks},window={window}")?;
                if *true_positions { write!(f, ",positions=true") } else { Ok(()) }
            }
            CacheSpec::Quest(quest) => write!(f, "{quest}"),
            CacheSpec::EvictThenQuest(evict, quest) => write!(f, "{evict}+{quest}"),
            CacheSpec::Heavy(Heavy::H2o { heavy, recent, pinned }) => {
                write!(f, "h2o:heavy={heavy},recent={recent}{}", Pinned(*pinned))
            }
            CacheSpec::Heavy(Heavy::Tova { budget, pinned }) => {
                write!(f, "tova:budget={budget}{}", Pinned(*pinned))
            }
            CacheSpec::Duo(Duo { pattern, threshold, sinks, recent }) => {
                write!(f, "duo:pattern={pattern},threshold={threshold},sinks={sinks},recent={recent}")
            }
            CacheSpec::Compress(compress) => write!(f, "{compress}"),
        }
    }
}

impl fmt::Display for Compress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compress { scorer, split, budget, window, pinned } = self;
        let scorer_name = match scorer {
            Scorer::Attention { .. } => "snapkv",
            Scorer::KeyNorm => "knorm",
            Scorer::KeyDifference => "keydiff",
            Scorer::Expected { .. } => "expected",
        };
        let name = match split {
            Split::Uniform => scorer_name,
            Split::Pyramid { .. } => "pyramidkv",
            Split::Adaptive { .. } => "adakv",
            Split::Chunks { .. } => "chunkkv",
        };
        write!(f, "{name}:budget={budget},window={window}")?;
        match scorer {
            Scorer::Attention { .. } if matches!(split, Split::Chunks { .. }) => {}
            Scorer::Attention { kernel, pool } => {
                let pool = if *pool == Pool::Max { "max" } else { "avg" };
                write!(f, ",kernel={kernel},pool={pool}")?;
            }
            Scorer::Expected { future, epsilon } => write!(f, ",future={future},epsilon={epsilon}")?,
            Scorer::KeyNorm | Scorer::KeyDifference => {}
        }
        match split {
            Split::Uniform => {}
            Split::Pyramid { beta } => write!(f, ",beta={beta}")?,
            Split::Adaptive { alpha } => write!(f, ",alpha={alpha}")?,
            Split::Chunks { chunk } => write!(f, ",chunk={chunk}")?,
        }
        if matches!(split, Split::Adaptive { .. }) && scorer_name != "snapkv" {
            write!(f, ",base={scorer_name}")?;
        }
        write!(f, "{}", Pinned(*pinned))
    }
}

/// `,pinned=N` where there is one.
struct Pinned(usize);

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0 { write!(f, ",pinned={}", self.0) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> CacheSpec {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_text_form_round_trips_with_its_defaults_written_out() {
        for (text, canonical) in [
            ("full", "full"),
            ("static:1", "static:1"),
            ("static:64MiB", "static:64MiB"),
            ("streaming", "streaming:sinks=4,window=1020"),
            ("streaming:window=60,sinks=0,positions=true", "streaming:sinks=0,window=60,positions=true"),
            ("streaming:pinned=9", "streaming:sinks=9,window=1020"),
            ("quest", "quest:budget=1024,page=16,dense_layers=2,select=lane"),
            ("quest:select=head,budget=10%", "quest:budget=10%,page=16,dense_layers=2,select=head"),
            ("snapkv:budget=128", "snapkv:budget=128,window=32,kernel=7,pool=max"),
            ("pyramidkv:budget=64", "pyramidkv:budget=64,window=8,kernel=7,pool=max,beta=20"),
            ("adakv", "adakv:budget=128,window=32,kernel=7,pool=max,alpha=0.2"),
            ("adakv:base=knorm", "adakv:budget=128,window=32,alpha=0.2,base=knorm"),
            ("chunkkv:budget=2000B,window=4", "chunkkv:budget=2000B,window=4,chunk=20"),
            ("h2o:heavy=24,recent=24,pinned=4", "h2o:heavy=24,recent=24,pinned=4"),
            ("tova:budget=0.5%", "tova:budget=0.5%"),
            ("knorm:budget=64", "knorm:budget=64,window=1"),
            ("keydiff:budget=64", "keydiff:budget=64,window=1"),
            ("expected:budget=64", "expected:budget=64,window=1,future=512,epsilon=0.02,pinned=4"),
            ("duo:pattern=p.tsv", "duo:pattern=p.tsv,threshold=0.5,sinks=128,recent=256"),
            (
                "adakv:budget=1KiB+quest:budget=64",
                "adakv:budget=1KiB,window=32,kernel=7,pool=max,alpha=0.2+quest:budget=64,page=16,dense_layers=2,select=lane",
            ),
        ] {
            assert_eq!(parse(text).to_string(), canonical);
            assert_eq!(parse(canonical), parse(text), "{text}");
        }
    }

    #[test]
    fn wrong_texts_are_refused_with_what_was_written_and_the_nearest_form() {
        for (text, hint) in [
            ("", "full"),
            ("Full", "full"),
            ("full:3", "full"),
            ("full:", "full"),
            ("static", "static:4096"),
            ("static:", "static:4096"),
            ("static:0", "static:4096"),
            ("static:-1", "static:4096"),
            ("static:x", "static:64MiB"),
            ("snapvk:budget=64", "snapkv:budget=N"),
            ("streamin:sinks=4", "streaming:sinks=4"),
            ("strem", "the nearest is streaming"),
            ("ada:budget=4", "the nearest is adakv"),
            ("streaming:window=0", "at least 1"),
            ("streaming:snks=4", "nearest is sinks"),
            ("streaming:4", "not key=value"),
            ("streaming:sinks=4,sinks=5", "twice"),
            ("streaming:positions=maybe", "false, true"),
            ("quest:page=12", "power of two"),
            ("quest:budget=8", "at least one page"),
            ("quest:budget=0", "at least 1"),
            ("snapkv", "needs budget"),
            ("snapkv:bugdet=64", "bugdet"),
            ("snapkv:budget=32", "at least 33"),
            ("snapkv:budget=64,kernel=4", "odd"),
            ("snapkv:budget=200%", "up to 100%"),
            ("adakv:alpha=1.5", "between 0 and 1"),
            ("adakv:alpha=NaN", "between 0 and 1"),
            ("h2o:heavy=3", "needs recent"),
            ("duo:threshold=1", "needs pattern"),
            ("streaming+quest", "do not go together"),
            ("full+quest:page=3", "power of two"),
        ] {
            let error = text.parse::<CacheSpec>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
            assert!(error.contains(&format!("`{text}`")) || text.contains('+'), "{error}");
        }
    }
}
