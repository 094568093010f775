//! What a model is: its hyper-parameters, the tensors they imply, its tokenizer and its chat template.
//!
//! Nothing here touches the bytes of a weight or knows what machine it runs on.
#![forbid(unsafe_code)]

pub mod chat_template;
pub mod config;
pub mod config_json;
pub mod error;
mod families;
pub mod generation_config;
pub mod gguf_keys;
pub mod kv_text;
pub mod nearest;
pub mod operator;
pub mod presets;
pub mod sizes;
pub mod tensor_plan;
pub mod tokenizer;
mod validate;

pub use chat_template::ChatTemplate;
pub use config::ModelConfig;
pub use error::ModelError;
pub use generation_config::GenerationConfig;
pub use operator::{Cost, Operator};
pub use sizes::ParameterCount;
pub use tensor_plan::TensorPlan;
pub use tokenizer::Tokenizer;
