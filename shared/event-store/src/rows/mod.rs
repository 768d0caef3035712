//! Events as rows: tables, columns, and their binary form.

pub(crate) mod columns;
pub(crate) mod copy_buffer;
pub(crate) mod event;
pub(crate) mod field;
pub(crate) mod kind;
