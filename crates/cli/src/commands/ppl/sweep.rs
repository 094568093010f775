//! `--sweep cache=…` and `--sweep kv-type=…`.

use crate::failure::Failure;

/// The lists of a sweep; an axis that was not named is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    pub caches: Vec<String>,
    pub kv_types: Vec<String>,
}

/// Storage formats with commas or semicolons between them.
fn kv_types(list: &str) -> Vec<String> {
    list.split(';').flat_map(roofline_model::kv_text::pieces).map(str::to_string).collect()
}

impl Sweep {
    pub fn parse(flags: &[String]) -> Result<Sweep, Failure> {
        let mut sweep = Sweep::default();
        for flag in flags {
            let (axis, list) = flag.split_once('=').unwrap_or((flag, ""));
            let (all, pieces) = match axis.trim() {
                "cache" => (&mut sweep.caches, specs(list)),
                "kv-type" => (&mut sweep.kv_types, kv_types(list)),
                other => {
                    return Err(Failure::new(format_args!("--sweep: `{other}` is no axis"))
                        .hint("write cache=SPEC;SPEC or kv-type=TYPE,TYPE"));
                }
            };
            for piece in pieces {
                let piece = piece.trim().to_string();
                if piece.is_empty() {
                    return Err(Failure::new(format_args!("--sweep {flag}: a value is missing")));
                }
                if all.contains(&piece) {
                    return Err(Failure::new(format_args!("--sweep {axis}: {piece} is given twice")));
                }
                all.push(piece);
            }
        }
        Ok(sweep)
    }
}

/// Cache specs hold commas themselves. A new one begins behind a `;` and behind a comma that no parameter follows:
/// a parameter is `name=value`, a spec begins with the name of its policy alone.
fn specs(list: &str) -> Vec<String> {
    let mut specs: Vec<String> = Vec::new();
    for part in list.split(';') {
        for (index, piece) in part.split(',').enumerate() {
            let head = piece.split(':').next().unwrap_or_default();
            match specs.last_mut() {
                Some(last) if index > 0 && head.contains('=') => {
                    last.push(',');
                    last.push_str(piece);
                }
                _ => specs.push(piece.to_string()),
            }
        }
    }
    specs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_told_from_their_parameters() {
        for (list, expected) in [
            ("full", vec!["full"]),
            ("full,static:9", vec!["full", "static:9"]),
            (
                "streaming:sinks=4,window=60,quest:budget=64,page=16",
                vec!["streaming:sinks=4,window=60", "quest:budget=64,page=16"],
            ),
            ("a:x=1,y=2;b:z=3;full", vec!["a:x=1,y=2", "b:z=3", "full"]),
            ("quest,full", vec!["quest", "full"]),
            ("duo:pattern=a.tsv,sinks=4", vec!["duo:pattern=a.tsv,sinks=4"]),
            ("full,,static:1", vec!["full", "", "static:1"]),
        ] {
            assert_eq!(specs(list), expected, "{list}");
        }
    }

    #[test]
    fn formats_of_keys_and_values_stay_together() {
        assert_eq!(kv_types("f16,k=i8,v=f16;q8_0"), ["f16", "k=i8,v=f16", "q8_0"]);
    }

    #[test]
    fn axes_add_up_and_nonsense_is_refused() {
        let parse =
            |flags: &[&str]| Sweep::parse(&flags.iter().map(|flag| flag.to_string()).collect::<Vec<_>>());
        let sweep = parse(&["cache=full", "kv-type=f32,f16", "cache=static:9"]).unwrap();
        assert_eq!((sweep.caches.len(), sweep.kv_types.len()), (2, 2));
        for wrong in ["cach=full", "full", "cache=", "cache=full,,x", "kv-type=f16,f16"] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
