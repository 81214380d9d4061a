//! The derive macro for binade modules: visits parameters and buffers by dotted name.
