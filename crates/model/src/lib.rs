//! What a model is: its hyper-parameters, the tensors they imply, its tokenizer and its chat template.
//!
//! Nothing here touches the bytes of a weight or knows what machine it runs on.
#![forbid(unsafe_code)]

pub mod config;
pub mod operator;
pub mod tensor_plan;

pub use config::ModelConfig;
pub use operator::{Cost, Operator};
pub use tensor_plan::TensorPlan;
