//! Matrix products of any size have one order of sums, on any number of threads.
