//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use crate::WeightsError;

#[derive(serde::Deserialize)]
struct RawIndex {
    weight_map: BTreeMap<String, String>,
}

/// The parsed index.
pub(crate) struct ShardIndex {
    file: String,
    shard_of: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads the index; shard names are checked to be plain file names, so none leads out of the folder.
    pub(crate) fn read(path: &Path) -> Result<ShardIndex, WeightsError> {
        let file = path.display().to_string();
        let text = std::fs::read(path).map_err(|source| WeightsError::Io {
            file: file.clone(),
            action: "read",
            source,
        })?;
        let index = ShardIndex::parse(file, &text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for (tensor, shard) in &index.shard_of {
            if !folder.join(shard).is_file() {
                let (tensor, shard) = (tensor.clone(), shard.clone());
                return Err(WeightsError::MissingShard { file: index.file, shard, tensor });
            }
        }
        Ok(index)
    }

    fn parse(file: String, text: &[u8]) -> Result<ShardIndex, WeightsError> {
        let RawIndex { weight_map } = serde_json::from_slice(text).map_err(|e| {
            WeightsError::bad(&file, "index", format!("invalid ({e})"), "an object weight_map")
        })?;
        for (tensor, shard) in &weight_map {
            let mut parts = Path::new(shard).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            if !plain || shard.contains(['/', '\\', ':', '\0']) {
                let field = format!("shard of tensor {tensor:?}");
                return Err(WeightsError::bad(
                    &file,
                    field,
                    format!("{shard:?}"),
                    "a file name without a folder",
                ));
            }
        }
        Ok(ShardIndex { file, shard_of: weight_map })
    }

    /// The shards, each once, in the order of their names.
    pub(crate) fn shards(&self) -> impl Iterator<Item = &str> {
        self.shard_of.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter()
    }

    /// Checks that every tensor is where the index says. `found` gives the shard a name was found in.
    pub(crate) fn check<'a>(&self, found: impl Fn(&str) -> Option<&'a str>) -> Result<(), WeightsError> {
        for (tensor, shard) in &self.shard_of {
            if found(tensor) != Some(shard) {
                let (file, shard, tensor) = (self.file.clone(), shard.clone(), tensor.clone());
                return Err(WeightsError::NotInShard { file, shard, tensor });
            }
        }
        Ok(())
    }
}
