//! Looking at models: summaries, health of gradients, text, histograms, pictures.

mod health;
mod histograms;
mod live_text;
#[cfg(feature = "plot")]
mod plots;
mod summary;
