//! How deep and how wide a description may be.

/// How many levels of modules a model has at most.
///
/// A forward pass goes down some frames of the stack for each, and so does what clones, compares, prints and drops a
/// description: 7 KiB a level without optimization, of the 2 MiB that a thread has. torch's own limit of 1,000 Python
/// frames, three for each call of a module, is reached after some 330.
pub const MAX_DEPTH: usize = 200;

/// How many parameters, buffers and children a module registers at most.
pub const MAX_ENTRIES: usize = 1 << 16;

/// Says that a module would register too much.
pub fn too_many(given: usize) -> String {
    format!("expected at most {MAX_ENTRIES} parameters, buffers and children, got {given}")
}

/// Says that modules are nested too deep.
pub fn too_deep() -> String {
    format!("expected modules nested at most {MAX_DEPTH} levels deep")
}
