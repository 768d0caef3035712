//! Which archive this is, and the pipeline whose events it keeps.

pub(crate) mod adoption;
pub(crate) mod pipeline;
