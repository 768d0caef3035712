//! The public form: one JSON object per event.

mod decode;
mod encode;
mod field;
mod rfc3339;
mod schema;
mod values;
mod words;

pub use decode::{Decoded, Undecoded, decode_line};
pub use encode::{encode_line, encode_lines, write_line, write_verdict};
pub use rfc3339::{format_second, format_time, parse_time};
pub use schema::schema;
