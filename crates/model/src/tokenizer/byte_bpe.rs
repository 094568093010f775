//! Byte-level BPE with a merge table, as GGUF files of `tokenizer.ggml.model = gpt2` carry it.

use std::cmp::Reverse;
use std::ops::Range;

use super::byte_map::char_of_byte;
use super::error::TokenizerError;
use super::index::{Index, MAX_NUMBER, Seed};
use super::merge::Merger;
use super::pieces::PreTokenizer;
use super::vocabulary::Vocabulary;
use roofline_weights::gguf::Texts;

/// Pre-tokenizer, merges and the tokens of single bytes.
pub(crate) struct ByteBpe {
    rules: PreTokenizer,
    byte_tokens: [Option<u32>; 256],
    merges: Merges,
    /// A piece that is a token is taken whole, even where merging would not arrive at it (Llama 3).
    whole_pieces: bool,
}

impl ByteBpe {
    /// `merges` are `left right` with one space between, best first. A pair that occurs twice keeps its first rank.
    ///
    /// # Errors
    /// A merge without a space, or one whose parts or result are not in the vocabulary; more than 2²⁴ - 1 merges.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        merges: &Texts,
        rules: PreTokenizer,
        whole_pieces: bool,
    ) -> Result<Self, TokenizerError> {
        let mut buffer = [0u8; 4];
        let byte_tokens =
            std::array::from_fn(|byte| vocabulary.id(char_of_byte(byte as u8).encode_utf8(&mut buffer)));
        let merges = Merges::new(read_merges(vocabulary, merges)?)?;
        Ok(Self { rules, byte_tokens, merges, whole_pieces })
    }

    /// Appends the ids of `text` to `ids`.
    ///
    /// # Errors
    /// A byte without a token.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut work = Work { bytes: Vec::new(), spelled: String::new(), merger: Merger::new() };
        let mut result = Ok(());
        self.rules.split(text, &mut |piece| {
            if result.is_ok() {
                result = self.encode_piece(vocabulary, piece, &mut work, ids);
            }
        });
        result
    }

    fn encode_piece(
        &self,
        vocabulary: &Vocabulary,
        piece: &str,
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if self.whole_pieces {
            work.spelled.clear();
            work.spelled.extend(piece.bytes().map(char_of_byte));
            if let Some(id) = vocabulary.mergeable(&work.spelled) {
                ids.push(id);
                return Ok(());
            }
        }
        work.bytes.clear();
        for byte in piece.bytes() {
            let id = self.byte_tokens[usize::from(byte)].ok_or(TokenizerError::NoTokenForByte { byte })?;
            work.bytes.push(id);
        }
        let join = |left, right| self.merges.get((left, right));
        ids.extend(work.merger.run(work.bytes.iter().copied(), join));
        Ok(())
    }
}

/// Buffers that live as long as one call of [`ByteBpe::encode`].
struct Work {
    bytes: Vec<u32>, // (bytes of the piece), their tokens
    spelled: String,
    merger: Merger<u32, Reverse<u32>>,
}

/// Two tokens, and the one that they become.
type Merge = ((u32, u32), u32);

/// Merges by rank and by pair.
struct Merges {
    by_rank: Vec<Merge>,
    index: Index, // rank by pair, the first of those with the same pair
    seed: Seed,
}

impl Merges {
    fn new(by_rank: Vec<Merge>) -> Result<Merges, TokenizerError> {
        let most = MAX_NUMBER as usize + 1;
        if by_rank.len() > most {
            let problem = format!("{} merges, at most {most} can be held", by_rank.len());
            return Err(TokenizerError::BadKey { key: "tokenizer.ggml.merges", problem });
        }
        let seed = Seed::new();
        let pair = |rank: u32| by_rank[rank as usize].0;
        let entries = by_rank.iter().enumerate().map(|(rank, (pair, _))| (rank as u32, seed.of_pair(*pair)));
        let (index, _) = Index::new(entries, |a, b| pair(a) == pair(b));
        Ok(Merges { by_rank, index, seed })
    }

    /// Rank and result of a pair.
    fn get(&self, pair: (u32, u32)) -> Option<(Reverse<u32>, u32)> {
        let rank = self.index.get(self.seed.of_pair(pair), |rank| self.by_rank[rank as usize].0 == pair)?;
        Some((Reverse(rank), self.by_rank[rank as usize].1))
    }
}

/// Fewer merges than this are read sooner than a thread starts.
const MANY: usize = 16_384;

/// The merges as ids, in order, by two threads where there are many: nothing else runs while a model is opened.
fn read_merges(vocabulary: &Vocabulary, merges: &Texts) -> Result<Vec<Merge>, TokenizerError> {
    let half = if merges.len() < MANY { merges.len() } else { merges.len() / 2 };
    let rest = || read_ranks(vocabulary, merges, half..merges.len());
    let (first, second) = std::thread::scope(|scope| {
        let beside = (half < merges.len()).then(|| std::thread::Builder::new().spawn_scoped(scope, rest));
        let first = read_ranks(vocabulary, merges, 0..half);
        // A system without another thread leaves both halves to this one; so would a panic there.
        let beside = beside.and_then(Result::ok).and_then(|beside| beside.join().ok());
        (first, beside.unwrap_or_else(rest))
    });
    let mut all = first?;
    all.extend(second?);
    Ok(all)
}

fn read_ranks(
    vocabulary: &Vocabulary,
    merges: &Texts,
    ranks: Range<usize>,
) -> Result<Vec<Merge>, TokenizerError> {
    let mut reader = Reader { vocabulary, joined: String::new(), expected: 0 };
    let read = |rank| {
        let merge = merges.get(rank).unwrap_or_default();
        let bad = |problem| TokenizerError::BadMerge { rank, merge: merge.to_owned(), problem };
        reader.read(merge).map_err(bad)
    };
    ranks.map(read).collect()
}

/// Turns the texts of merges into ids.
struct Reader<'v> {
    vocabulary: &'v Vocabulary,
    joined: String,
    /// Where the result is in most vocabularies: they list their tokens as merging made them.
    expected: u32,
}

impl Reader<'_> {
    fn read(&mut self, merge: &str) -> Result<Merge, String> {
        let (left, right) = merge.split_once(' ').ok_or("no space between two tokens")?;
        let pair = (self.id(left)?, self.id(right)?);
        let merged = self.merged(left, right)?;
        self.expected = merged + 1;
        Ok((pair, merged))
    }

    fn id(&self, token: &str) -> Result<u32, String> {
        self.vocabulary.id(token).ok_or_else(|| format!("{token:?} is not in the vocabulary"))
    }

    fn merged(&mut self, left: &str, right: &str) -> Result<u32, String> {
        let expected = self.vocabulary.text(self.expected).and_then(|text| text.strip_prefix(left));
        if expected == Some(right) {
            return Ok(self.expected);
        }
        self.joined.clear();
        self.joined.push_str(left);
        self.joined.push_str(right);
        self.id(&self.joined)
    }
}
