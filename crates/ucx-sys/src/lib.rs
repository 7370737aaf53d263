//! Raw bindings to UCX, opened at run time.
