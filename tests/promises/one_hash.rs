//! The same bits from every instruction set and any number of threads.
