//! The service: keeps stores open and answers engines and command lines.

pub mod stores;
