//! Events to bytes and back, and the subjects on which they are published.
//!
//! A message carries a batch of events in one of two forms, JSON lines or bincode. Its
//! `Content-Type` names the form. Reading is total: any bytes give a list of items, and each item
//! is an event that may be counted, or a refusal with its reason and bytes.
//!
//! Architecture invariant: this crate performs no I/O and reads no clock, and it is the only user of
//! bincode.

pub mod derived;
mod format;
pub mod headers;
pub mod json;
mod packer;
mod read;
mod refused;
pub mod replay;
pub mod republish;
mod sample;
mod seal;
mod size;
pub mod snapshot;
pub mod subject;
mod text;
mod v1;
mod verdicts;

#[cfg(test)]
mod fixtures;

pub use format::Format;
pub use headers::{Headers, Unreadable};
pub use packer::{Packer, PackerLimits};
pub use read::{
    Contents, ITEMS_MAX, Item, Message, Raw, RefusedItem, count_items, decode, read, whole,
};
pub use refused::seal_refused;
pub use sample::{decode_sample, encode_sample, read_sample};
pub use seal::{Sealed, seal};
pub use size::{MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MIN, cut};
pub use subject::{NoSourceName, Subjects, source_name, source_token};
pub use text::{BEGINNING_BYTES, Foreign, foreign, trimmed};
pub use verdicts::{VERDICTS_PER_MESSAGE_MAX, seal_verdicts};
