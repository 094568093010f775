//! The text form of a pair of KV cache formats: one name for both, or `k=NAME,v=NAME`.

/// The names of the key format and of the value format in `i8` or `k=i8,v=f16`; `None` for anything else.
pub fn key_and_value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let Some((one, other)) = text.split_once(',') else {
        return (!text.is_empty() && !text.contains('=')).then_some((text, text));
    };
    let [one, other] = [one.trim().split_once('=')?, other.trim().split_once('=')?];
    match (one.0.trim_end(), other.0.trim_end()) {
        ("k", "v") => Some((one.1.trim(), other.1.trim())),
        ("v", "k") => Some((other.1.trim(), one.1.trim())),
        _ => None,
    }
}

/// Cuts a list of such texts at its commas, but for the comma within a pair.
pub fn pieces(list: &str) -> Vec<&str> {
    let half = |piece: &str| piece.contains('=') && !piece.contains(',');
    let mut pieces: Vec<&str> = Vec::new();
    let mut start = 0;
    for (at, _) in list.match_indices(',').chain([(list.len(), "")]) {
        let piece = list[start..at].trim();
        match pieces.last_mut() {
            Some(last) if half(last) && half(piece) => {
                let from = last.as_ptr() as usize - list.as_ptr() as usize;
                *last = list[from..at].trim_end();
            }
            _ => pieces.push(piece),
        }
        start = (at + 1).min(list.len());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_for_both_and_two_are_named() {
        assert_eq!(key_and_value(" i8 "), Some(("i8", "i8")));
        assert_eq!(key_and_value("k=i8,v=f16"), Some(("i8", "f16")));
        assert_eq!(key_and_value("v = f16 , k = i8"), Some(("i8", "f16")));
        for text in ["", "k=i8", "i8,f16", "k=i8,k=f16", "k=i8;v=f16", "x=i8,v=f16", ","] {
            assert_eq!(key_and_value(text), None, "{text}");
        }
    }

    #[test]
    fn a_list_keeps_its_pairs_together() {
        assert_eq!(pieces("f16, k=i8,v=f16 ,q8_0"), ["f16", "k=i8,v=f16", "q8_0"]);
        assert_eq!(pieces("k=i8, v=f16,k=f16,v=i8"), ["k=i8, v=f16", "k=f16,v=i8"]);
        assert_eq!(pieces("f16,,i8"), ["f16", "", "i8"]);
        assert_eq!(pieces("k=i8,f16"), ["k=i8", "f16"]);
        assert_eq!(pieces(""), [""]);
    }
}
