//! Names that somebody may have meant.

/// A name without case, spaces and punctuation: `RTX-4090` and `rtx 4090` are the same.
pub fn normalized(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric() || *c == '+').flat_map(char::to_lowercase).collect()
}

/// Number of edits (insert, delete, replace, swap of neighbours) between two names.
pub fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let width = b.len() + 1;
    let mut table = vec![0usize; (a.len() + 1) * width]; // (a.len() + 1, b.len() + 1)
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let cell = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = table[(i - 1) * width + j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(table[(i - 1) * width + j] + 1).min(table[i * width + j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[(i - 2) * width + j - 2] + 1);
                }
                best
            };
            table[i * width + j] = cell;
        }
    }
    table[a.len() * width + b.len()]
}

/// The `count` candidates nearest to `name`, nearest first. A candidate that contains the name or is contained in it counts as
/// half as far.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>, count: usize) -> Vec<String> {
    let wanted = normalized(name);
    let mut ranked: Vec<(usize, &str)> = candidates
        .map(|candidate| {
            let have = normalized(candidate);
            let far = 2 * distance(&wanted, &have);
            let inside = !wanted.is_empty() && (have.contains(&wanted) || wanted.contains(&have));
            (if inside { far / 2 } else { far }, candidate)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().take(count).map(|(_, candidate)| candidate.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_letters_are_one_edit() {
        assert_eq!(distance("4090", "4009"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_nearest_name_comes_first() {
        let names = ["RTX 4080", "RTX 4090", "Apple M2"];
        assert_eq!(nearest("rtx-4909", names.into_iter(), 2), ["RTX 4090", "RTX 4080"]);
    }
}
