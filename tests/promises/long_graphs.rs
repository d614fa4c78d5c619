//! Long programs are planned in time that grows with their length, and plans take bounded memory.
