//! The `walcast` program: arguments, logging, exit code; nothing else.

fn main() {}
