//! Looking at models: summaries, health of gradients, text, histograms, pictures.

mod health;
mod histograms;
mod live_text;
#[cfg(feature = "log")]
mod log;
#[cfg(feature = "plot")]
mod plots;
mod profile;
mod summary;
