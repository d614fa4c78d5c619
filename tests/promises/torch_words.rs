//! What torch refuses is refused in its words, and nothing is lost in silence.
