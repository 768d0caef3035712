//! Events as rows: tables, columns, and their binary form.

pub(crate) mod copy_buffer;
pub(crate) mod decode;
pub(crate) mod kind;
