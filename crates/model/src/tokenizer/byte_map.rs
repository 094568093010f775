//! GPT-2's spelling of bytes as printable characters, in which byte-level BPE vocabularies are written.
//!
//! Bytes that print in Latin-1 stand for themselves; the other 68 take U+0100… in order (space becomes `Ġ`).

/// The character that stands for `byte`.
pub(crate) fn char_of_byte(byte: u8) -> char {
    let code = match byte {
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7F..=0xA0 => 0x121 + u32::from(byte - 0x7F),
        0xAD => 0x143,
        printable => u32::from(printable),
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `c` stands for, if it stands for one.
pub(crate) fn byte_of_char(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The bytes that a byte-level token stands for; `None` if a character of it stands for no byte.
pub(crate) fn bytes_of_token(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of_char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let chars: std::collections::HashSet<char> = (0..=255).map(char_of_byte).collect();
        assert_eq!(chars.len(), 256);
        for byte in 0..=255 {
            assert_eq!(byte_of_char(char_of_byte(byte)), Some(byte));
        }
    }

    #[test]
    fn known_spellings() {
        assert_eq!(char_of_byte(b' '), 'Ġ');
        assert_eq!(char_of_byte(b'\n'), 'Ċ');
        assert_eq!(char_of_byte(b'\t'), 'ĉ');
        assert_eq!(char_of_byte(0xAD), 'Ń');
        assert_eq!(bytes_of_token("ĠhÃ©"), Some(" hé".as_bytes().to_vec()));
        assert_eq!(bytes_of_token("a b"), None);
    }
}
