//! Rows that are chosen by whole numbers: embeddings, and what adds to such rows.

pub mod embedding;
pub mod embedding_bag;
pub mod one_hot;
pub mod renorm;
pub mod rows;
pub(crate) mod scatter;
