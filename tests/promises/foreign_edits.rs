//! Components and resources that the host removes, and sizes beyond any memory, are errors.
