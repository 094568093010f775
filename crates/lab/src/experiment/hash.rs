//! Hashes that name things: specifications, cells, prompts, models. They tell different things apart by accident, not by
//! an adversary.

use serde::Serialize;
use serde_json::Value;

/// FNV-1a over 64 bits (Fowler, Noll, Vo), taken eight bytes at a time: byte by byte a model of gigabytes takes seconds.
#[derive(Debug, Clone, Copy)]
pub struct Hash(u64);

const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Takes in the bytes and their number, so that "a" + "bc" and "ab" + "c" differ.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
        self.mix(bytes.len() as u64);
    }

    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(PRIME);
        // A product carries differences upwards only; this brings them back down.
        self.0 ^= self.0 >> 32;
    }

    /// 16 hexadecimal digits.
    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// Hash of a value as JSON with sorted keys: the order of fields does not matter.
pub fn hash_of(value: &impl Serialize) -> String {
    let mut hash = Hash::default();
    match serde_json::to_value(value) {
        Ok(value) => add_value(&mut hash, &value),
        // Nothing that is hashed has keys that are no strings, the one thing JSON refuses.
        Err(error) => hash.add(error.to_string().as_bytes()),
    }
    hash.text()
}

/// Hash of token ids.
pub fn hash_of_ids(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut hash = Hash::default();
    hash.add(&bytes);
    hash.text()
}

fn add_value(hash: &mut Hash, value: &Value) {
    match value {
        Value::Object(object) => {
            hash.add(b"{");
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            for (name, value) in entries {
                hash.add(name.as_bytes());
                add_value(hash, value);
            }
            hash.add(b"}");
        }
        Value::Array(values) => {
            hash.add(b"[");
            values.iter().for_each(|value| add_value(hash, value));
            hash.add(b"]");
        }
        leaf => hash.add(leaf.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_fields_does_not_matter_and_everything_else_does() {
        let hash = |text: &str| hash_of(&serde_json::from_str::<Value>(text).unwrap());
        let one = hash(r#"{"a": 1, "b": [1, "x"]}"#);
        assert_eq!(one, hash(r#"{"b": [1, "x"], "a": 1}"#));
        for other in
            [r#"{"a": 1, "b": ["x", 1]}"#, r#"{"a": 2, "b": [1, "x"]}"#, r#"{"b": 1, "a": [1, "x"]}"#, "{}"]
        {
            assert_ne!(one, hash(other), "{other}");
        }
        // Files of last year must still be recognised: the hash may not change.
        assert_eq!(hash("[1,2]"), "f3a372794d56b834");
    }

    #[test]
    fn ids_and_bytes() {
        assert_ne!(hash_of_ids(&[1, 2]), hash_of_ids(&[2, 1]));
        assert_ne!(hash_of_ids(&[0]), hash_of_ids(&[0, 0]));
        let (mut a, mut b) = (Hash::default(), Hash::default());
        a.add(b"abcdefgh");
        a.add(b"i");
        b.add(b"abcdefghi");
        assert_ne!(a.text(), b.text());
    }
}
