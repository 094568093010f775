//! Every stage against a plain transcription of its definition: float64, whole sorts, quadratic searches.
#![allow(clippy::unwrap_used, clippy::panic)] // tests

use roofline_engine::sampling::{Chain, Dry, Rng, Sampler, SamplerConfig, Stage, Window};

/// The definitions, on (token, logit) pairs still in the draw.
struct Oracle<'a> {
    config: &'a SamplerConfig,
    history: &'a [u32],
    left: Vec<(u32, f64)>,
}

impl Oracle<'_> {
    fn distribution(config: &SamplerConfig, history: &[u32], logits: &[f32]) -> Vec<(u32, f64)> {
        let left = (0..).zip(logits.iter().map(|&x| f64::from(x))).filter(|(_, x)| x.is_finite()).collect();
        let mut oracle = Oracle { config, history, left };
        for &stage in config.chain.stages() {
            oracle.run(stage);
        }
        let mut result = oracle.probabilities();
        result.sort_by_key(|(id, _)| *id);
        result
    }

    fn run(&mut self, stage: Stage) {
        let config = self.config;
        match stage {
            Stage::LogitBias => self.change(|id, x| {
                x + config
                    .logit_bias
                    .iter()
                    .filter(|(t, _)| *t == id)
                    .map(|(_, b)| f64::from(*b))
                    .sum::<f64>()
            }),
            Stage::Penalties => {
                let window = tail(self.history, config.effective_penalty_window());
                self.change(|id, x| {
                    let count = window.iter().filter(|&&token| token == id).count() as f64;
                    if count == 0.0 {
                        return x;
                    }
                    let repetition = f64::from(config.repetition_penalty.unwrap_or(1.0));
                    let scaled = if x > 0.0 { x / repetition } else { x * repetition };
                    let frequency = f64::from(config.frequency_penalty.unwrap_or(0.0));
                    scaled - count * frequency - f64::from(config.presence_penalty.unwrap_or(0.0))
                });
            }
            Stage::NoRepeatNgram => {
                let Some(n) = config.no_repeat_ngram else { return };
                let history = self.history;
                self.left.retain(|(id, _)| {
                    let mut would_be = history.to_vec();
                    would_be.push(*id);
                    let ngram = &would_be[would_be.len().saturating_sub(n)..];
                    ngram.len() < n || !history.windows(n).any(|seen| seen == ngram)
                });
            }
            Stage::Dry => {
                let Some(dry) = &config.dry else { return };
                let window = tail(self.history, dry.window);
                self.change(|id, x| x - dry_penalty(dry, window, id));
            }
            Stage::Temperature => self.change(|_, x| x / f64::from(config.temperature.unwrap_or(1.0))),
            Stage::TopK => {
                self.sort_by(|_, logit, _| -logit);
                self.left.truncate(config.top_k.unwrap_or(usize::MAX));
            }
            Stage::TopP => {
                self.sort_by(|_, logit, _| -logit);
                self.keep_mass(config.top_p);
            }
            Stage::MinP => {
                let Some(p) = config.min_p else { return };
                let likeliest = self.probabilities().iter().map(|(_, q)| *q).fold(0.0, f64::max);
                let probabilities = self.probabilities();
                let mut at = 0..;
                self.left.retain(|_| probabilities[at.next().unwrap()].1 >= f64::from(p) * likeliest);
            }
            Stage::TypicalP => {
                let entropy: f64 = -self.probabilities().iter().map(|(_, q)| q * q.ln()).sum::<f64>();
                self.sort_by(|_, _, probability| (-probability.ln() - entropy).abs());
                self.keep_mass(config.typical_p);
            }
        }
    }

    fn probabilities(&self) -> Vec<(u32, f64)> {
        let max = self.left.iter().map(|(_, x)| *x).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = self.left.iter().map(|(_, x)| (x - max).exp()).sum();
        self.left.iter().map(|(id, x)| (*id, (x - max).exp() / total)).collect()
    }

    fn change(&mut self, new: impl Fn(u32, f64) -> f64) {
        self.left.iter_mut().for_each(|(id, x)| *x = new(*id, *x));
        self.left.retain(|(_, x)| x.is_finite());
    }

    fn sort_by(&mut self, key: impl Fn(u32, f64, f64) -> f64) {
        let probabilities = self.probabilities();
        let mut keyed: Vec<_> = self
            .left
            .iter()
            .zip(&probabilities)
            .map(|((id, x), (_, q))| (key(*id, *x, *q), *id, *x))
            .collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.left = keyed.into_iter().map(|(_, id, x)| (id, x)).collect();
    }

    /// Of the sorted tokens, those before which less than p has come together.
    fn keep_mass(&mut self, p: Option<f32>) {
        let p = f64::from(p.unwrap_or(1.0));
        if p == 1.0 {
            return;
        }
        let mut before = 0.0;
        let keep = self.probabilities().iter().take_while(|(_, q)| (before < p, before += q).0).count();
        self.left.truncate(keep);
    }
}

fn tail(history: &[u32], window: Window) -> &[u32] {
    match window {
        Window::All => history,
        Window::Last(n) => &history[history.len() - n.min(history.len())..],
    }
}

/// For each place where `id` stands: the longest run before it that also ends the window and holds no part of a breaker.
fn dry_penalty(dry: &Dry, window: &[u32], id: u32) -> f64 {
    if dry.breakers.contains(&vec![id]) {
        return 0.0;
    }
    let mut limit = window.len();
    for start in (0..window.len()).rev() {
        let longest = dry.breakers.iter().filter(|b| window[start..].starts_with(b)).map(Vec::len).max();
        if let Some(longest) = longest {
            limit = window.len() - start - longest;
            break;
        }
    }
    let mut repeat = 0;
    for place in (1..window.len()).filter(|&place| window[place] == id) {
        let shared = (1..=place).take_while(|n| window[place - n] == window[window.len() - n]).count();
        repeat = repeat.max(shared.min(limit));
    }
    if repeat < dry.allowed_length {
        return 0.0;
    }
    f64::from(dry.multiplier) * f64::from(dry.base).powi((repeat - dry.allowed_length) as i32)
}

/// A random but reproducible test case.
struct Case(Rng);

impl Case {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn between(&mut self, low: f64, high: f64) -> f32 {
        (low + (high - low) * self.0.next_unit()) as f32
    }

    fn sometimes<T>(&mut self, make: impl Fn(&mut Case) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| make(self))
    }

    fn window(&mut self) -> Window {
        if self.below(3) == 0 { Window::All } else { Window::Last(self.below(40)) }
    }

    fn chain(&mut self) -> Chain {
        match self.below(3) {
            0 => Chain::hf(),
            1 => Chain::llamacpp(),
            _ => {
                let mut stages = Stage::ALL.to_vec();
                for i in (1..stages.len()).rev() {
                    stages.swap(i, self.below(i + 1));
                }
                Chain::new(stages).unwrap()
            }
        }
    }

    fn dry(&mut self, vocab_size: usize) -> Dry {
        let breakers = (0..self.below(4)).map(|_| {
            let length = 1 + self.below(3);
            (0..length).map(|_| self.below(vocab_size.min(8)) as u32).collect()
        });
        Dry {
            breakers: breakers.collect(),
            multiplier: self.between(0.1, 1.5),
            base: self.between(1.0, 2.0),
            allowed_length: 1 + self.below(3),
            window: self.window(),
        }
    }

    fn config(&mut self, vocab_size: usize) -> SamplerConfig {
        SamplerConfig {
            chain: self.chain(),
            seed: 0,
            temperature: self.sometimes(|c| c.between(0.2, 2.0)),
            top_k: self.sometimes(|c| 1 + c.below(vocab_size + 5)),
            top_p: self.sometimes(|c| c.between(0.05, 1.0)),
            min_p: self.sometimes(|c| c.between(0.0, 0.4)),
            typical_p: self.sometimes(|c| c.between(0.05, 1.0)),
            repetition_penalty: self.sometimes(|c| c.between(0.6, 1.8)),
            presence_penalty: self.sometimes(|c| c.between(-1.0, 1.5)),
            frequency_penalty: self.sometimes(|c| c.between(-0.3, 0.5)),
            penalty_window: self.sometimes(Case::window),
            no_repeat_ngram: self.sometimes(|c| 2 + c.below(3)),
            dry: self.sometimes(|c| c.dry(vocab_size)),
            logit_bias: (0..self.below(3)).map(|i| (i as u32, self.between(-3.0, 3.0))).collect(),
        }
    }

    fn logits(&mut self, vocab_size: usize) -> Vec<f32> {
        let spread = f64::from(self.between(0.1, 6.0));
        (0..vocab_size)
            .map(|_| {
                if self.below(20) == 0 {
                    return f32::NEG_INFINITY;
                }
                let sum: f64 = (0..6).map(|_| self.0.next_unit() - 0.5).sum();
                (sum * spread) as f32
            })
            .collect()
    }
}

#[test]
fn any_chain_equals_its_plain_definition() {
    let mut case = Case(Rng::new(1));
    let mut cut = 0;
    for number in 0..1500 {
        let vocab_size = [5, 17, 64, 700][case.below(4)];
        let config = case.config(vocab_size);
        let mut logits = case.logits(vocab_size);
        logits[0] = 0.5; // one finite logit at least
        let alphabet = vocab_size.min(4 + case.below(8)); // few different tokens, so that sequences repeat
        let history: Vec<u32> = (0..case.below(80)).map(|_| case.below(alphabet) as u32).collect();

        let expected = Oracle::distribution(&config, &history, &logits);
        let mut sampler = Sampler::new(config.clone(), vocab_size, 80).unwrap();
        sampler.accept(&history).unwrap();
        let mut found = Vec::new();
        match sampler.distribution(&logits, &mut found) {
            Ok(()) => {}
            Err(error) if expected.is_empty() => {
                assert!(error.to_string().contains("no token"), "{error}");
                continue;
            }
            Err(error) => panic!("case {number}: {error}"),
        }
        let ids = |pairs: &[(u32, f64)]| pairs.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&found), ids(&expected), "case {number}: {config} on {history:?}");
        for ((id, p), (_, q)) in found.iter().zip(&expected) {
            assert!((p - q).abs() < 1e-5, "case {number}: token {id} has {p}, by definition {q}; {config}");
        }
        cut += usize::from(found.len() < vocab_size / 2);
    }
    assert!(cut > 300, "only {cut} cases cut anything away");
}

#[test]
fn cuts_of_a_real_vocabulary_equal_their_definition() {
    let mut case = Case(Rng::new(2));
    for text in [
        "top_k=40,top_p=0.95",
        "top_p=0.9",
        "typical_p=0.9",
        "min_p=0.05",
        "top_k=1",
        "top_k=60000",
        "top_p=0.9999",
    ] {
        for spread in [0.5, 3.0, 12.0] {
            let logits: Vec<f32> =
                (0..150_000).map(|_| (0..6).map(|_| case.between(-0.5, 0.5)).sum::<f32>() * spread).collect();
            let config: SamplerConfig = text.parse().unwrap();
            let expected = Oracle::distribution(&config, &[], &logits);
            let mut found = Vec::new();
            Sampler::new(config, logits.len(), 0).unwrap().distribution(&logits, &mut found).unwrap();
            // Float32 sums over so many tokens round: the border may lie elsewhere among near-equal tokens.
            let slack = expected.len() / 2000;
            assert!(
                found.len().abs_diff(expected.len()) <= slack,
                "{text}: {} not {}",
                found.len(),
                expected.len()
            );
            let mass: f64 = found.iter().map(|(_, p)| p).sum();
            assert!((mass - 1.0).abs() < 1e-5, "{text}: probabilities add to {mass}");
            let known: std::collections::HashMap<u32, f64> = expected.into_iter().collect();
            let strangers = found.iter().filter(|(id, _)| !known.contains_key(id)).count();
            assert!(strangers <= slack, "{text}: {strangers} tokens that the definition drops");
        }
    }
}

#[test]
fn equal_logits_keep_the_lower_ids() {
    let logits = [1.0, 2.0, 2.0, 1.0, 2.0, 1.0];
    for (text, kept) in [("top_k=2", vec![1, 2]), ("top_k=4", vec![0, 1, 2, 4]), ("top_p=0.4", vec![1, 2])] {
        let mut found = Vec::new();
        let mut sampler = Sampler::new(text.parse().unwrap(), 6, 0).unwrap();
        sampler.distribution(&logits, &mut found).unwrap();
        assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), kept, "{text}");
    }
}

#[test]
fn renaming_the_tokens_renames_the_distribution() {
    let mut case = Case(Rng::new(3));
    for _ in 0..200 {
        let mut config = case.config(300);
        (config.dry, config.logit_bias) = (None, Vec::new()); // they name tokens
        let logits = case.logits(300);
        let history: Vec<u32> = (0..30).map(|_| case.below(6) as u32).collect();
        let mut new_name: Vec<u32> = (0..300).collect();
        for i in (1..300).rev() {
            new_name.swap(i, case.below(i + 1));
        }
        let mut renamed_logits = vec![0.0; 300];
        (0..300).for_each(|i| renamed_logits[new_name[i] as usize] = logits[i]);
        let renamed_history: Vec<u32> = history.iter().map(|&t| new_name[t as usize]).collect();

        let run = |logits: &[f32], history: &[u32]| {
            let mut sampler = Sampler::new(config.clone(), 300, 30).unwrap();
            sampler.accept(history).unwrap();
            let mut out = Vec::new();
            sampler.distribution(logits, &mut out).map(|()| out)
        };
        let Ok(plain) = run(&logits, &history) else { continue };
        let mut expected: Vec<_> = plain.iter().map(|(id, p)| (new_name[*id as usize], *p)).collect();
        expected.sort_by_key(|(id, _)| *id);
        let found = run(&renamed_logits, &renamed_history).unwrap();
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(&expected) {
            assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-6, "{a:?} is not {b:?} under {config}");
        }
    }
}
