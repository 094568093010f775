//! Byte-level BPE with a merge table, as GGUF files of `tokenizer.ggml.model = gpt2` carry it.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::byte_map::char_of_byte;
use super::error::TokenizerError;
use super::merge::Merger;
use super::pieces::PreTokenizer;
use super::text_index::PairHash;
use super::vocabulary::Vocabulary;

/// Pre-tokenizer, merges and the tokens of single bytes.
pub(crate) struct ByteBpe {
    rules: PreTokenizer,
    byte_tokens: [Option<u32>; 256],
    merges: HashMap<(u32, u32), (Reverse<u32>, u32), PairHash>, // (left, right) → (rank, merged)
    /// A piece that is a token is taken whole, even where merging would not arrive at it (Llama 3).
    whole_pieces: bool,
}

impl ByteBpe {
    /// `merges` are `left right` with one space between, best first. A pair that occurs twice keeps its first rank.
    ///
    /// # Errors
    /// A merge without a space, or one whose parts or result are not in the vocabulary.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        merges: &[String],
        rules: PreTokenizer,
        whole_pieces: bool,
    ) -> Result<Self, TokenizerError> {
        let mut buffer = [0u8; 4];
        let byte_tokens =
            std::array::from_fn(|byte| vocabulary.id(char_of_byte(byte as u8).encode_utf8(&mut buffer)));
        let mut table = HashMap::with_capacity_and_hasher(merges.len(), PairHash::new());
        for (rank, (pair, merged)) in (0u32..).zip(read_merges(vocabulary, merges)?) {
            table.entry(pair).or_insert((Reverse(rank), merged));
        }
        Ok(Self { rules, byte_tokens, merges: table, whole_pieces })
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
        let join = |left, right| self.merges.get(&(left, right)).copied();
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

/// Fewer merges than this are read sooner than a thread starts.
const MANY: usize = 16_384;

/// The merges as ids, in order, by two threads where there are many: nothing else runs while a model is opened.
fn read_merges(vocabulary: &Vocabulary, merges: &[String]) -> Result<Vec<Merge>, TokenizerError> {
    if merges.len() < MANY {
        return read_from(vocabulary, merges, 0);
    }
    let (first, second) = merges.split_at(merges.len() / 2);
    let (first, second) = std::thread::scope(|scope| {
        let beside =
            std::thread::Builder::new().spawn_scoped(scope, || read_from(vocabulary, second, first.len()));
        let here = read_from(vocabulary, first, 0);
        // A system without another thread leaves both halves to this one; so would a panic there.
        let beside = beside.ok().and_then(|beside| beside.join().ok());
        (here, beside.unwrap_or_else(|| read_from(vocabulary, second, first.len())))
    });
    let mut all = first?;
    all.extend(second?);
    Ok(all)
}

/// The merges from rank `first` on.
fn read_from(vocabulary: &Vocabulary, merges: &[String], first: usize) -> Result<Vec<Merge>, TokenizerError> {
    let mut joined = String::new();
    let read = |(merge, rank): (&String, usize)| {
        read_merge(vocabulary, merge, &mut joined).map_err(|problem| TokenizerError::BadMerge {
            rank,
            merge: merge.clone(),
            problem,
        })
    };
    merges.iter().zip(first..).map(read).collect()
}

fn read_merge(vocabulary: &Vocabulary, merge: &str, joined: &mut String) -> Result<Merge, String> {
    let (left, right) = merge.split_once(' ').ok_or("no space between two tokens")?;
    joined.clear();
    joined.push_str(left);
    joined.push_str(right);
    let id = |token: &str| vocabulary.id(token).ok_or_else(|| format!("{token:?} is not in the vocabulary"));
    Ok(((id(left)?, id(right)?), id(joined)?))
}
