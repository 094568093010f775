//! [`Texts`]: the strings of an array, end to end in one piece of memory.
//!
//! A vocabulary and its merges are some 300 thousand strings. With an allocation for each, they were a third of the time
//! until a model was open, and as many calls again to give the memory back.

use std::str::Utf8Error;

/// Strings in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    blob: String,
    ends: Vec<usize>, // (texts), where each ends in the blob
}

impl Texts {
    /// `bytes` cut at `ends`, which ascend to the length of `bytes`.
    ///
    /// # Errors
    /// The index of the first text that is not UTF-8, and why.
    pub(super) fn from_bytes(bytes: Vec<u8>, ends: Vec<usize>) -> Result<Texts, (usize, Utf8Error)> {
        // What is valid as a whole and cut between characters is valid in parts.
        let bytes = match String::from_utf8(bytes) {
            Ok(blob) if ends.iter().all(|end| blob.is_char_boundary(*end)) => {
                return Ok(Texts { blob, ends });
            }
            Ok(blob) => blob.into_bytes(),
            Err(error) => error.into_bytes(),
        };
        let mut texts = Texts::default();
        let mut start = 0;
        for (index, end) in ends.into_iter().enumerate() {
            texts.push(std::str::from_utf8(&bytes[start..end]).map_err(|error| (index, error))?);
            start = end;
        }
        Ok(texts)
    }

    /// Appends `text`.
    pub fn push(&mut self, text: &str) {
        self.blob.push_str(text);
        self.ends.push(self.blob.len());
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`, `None` past the last.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.blob.get(start..end)
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.blob[std::mem::replace(&mut start, end)..end])
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Texts {
        let mut all = Texts::default();
        texts.into_iter().for_each(|text| all.push(text.as_ref()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_in_two_is_no_text() {
        let whole = "aé\u{1F980}".as_bytes().to_vec(); // 1, 2 and 4 bytes
        let cut = |ends: &[usize]| Texts::from_bytes(whole.clone(), ends.to_vec());
        assert_eq!(
            cut(&[0, 1, 3, 3, 7]).unwrap().iter().collect::<Vec<_>>(),
            ["", "a", "é", "", "\u{1F980}"]
        );
        assert_eq!(cut(&[1, 2, 3, 7]).unwrap_err().0, 1);
        assert_eq!(cut(&[1, 3, 5, 7]).unwrap_err().0, 2);
        let bad = Texts::from_bytes(vec![b'a', 0xff, b'b'], vec![1, 1, 2, 3]).unwrap_err();
        assert_eq!((bad.0, bad.1.valid_up_to()), (2, 0));
    }

    #[test]
    fn texts_come_back_as_they_went_in() {
        let given = ["", "▁the", "\u{1F980}", "", "x"];
        let texts: Texts = given.into_iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), given);
        assert_eq!(
            (0..6).map(|i| texts.get(i)).collect::<Vec<_>>(),
            [Some(""), Some("▁the"), Some("\u{1F980}"), Some(""), Some("x"), None]
        );
        assert!(Texts::default().is_empty() && texts.len() == 5);
    }
}
